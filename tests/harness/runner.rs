// SPDX-License-Identifier: Apache-2.0
//! A runner for `harness = false` tests: the tests of one file share one world, run one after the other, and can say that they were skipped.
//!
//! The output is libtest's, and so are the flags that matter: filters, `--exact`, `--skip`, `--list`; others are accepted and ignored. With `CI=true` a skipped test is a failed one.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Error, Result, anyhow};
use clap::Parser;

use crate::{
    enter::{Entered, Place, Stage},
    process, programs, tools,
    world::World,
};

/// The tests of one file, on one world.
pub struct Suite<W> {
    name: &'static str,
    ground: Ground<W>,
    tests: Vec<(&'static str, Test<W>)>,
    programs: &'static [&'static str],
    wheels: &'static [&'static tools::Wheel],
}

/// Where the tests of a file run.
enum Ground<W> {
    /// In a world of their own, out of which this makes what they share.
    World(fn(World) -> Result<W>),
    /// On the machine as it is.
    Machine(fn() -> Result<W>),
}

/// One test: a claim as its name, and what shows it.
pub type Test<W> = fn(&mut W) -> Result<()>;

/// The error of a test that cannot run here.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Says that a test cannot run on this machine, and why.
#[must_use]
pub fn skip(why: impl Into<String>) -> Error {
    Error::new(Skip(why.into()))
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Run only tests whose name contains one of these.
    filters: Vec<String>,
    /// Filters are whole names.
    #[arg(long)]
    exact: bool,
    /// Leave out tests whose name contains this.
    #[arg(long)]
    skip: Vec<String>,
    /// Print the names and stop.
    #[arg(long)]
    list: bool,
    /// Whether a skipped test is a failed one.
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    no_capture: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: Vec<&'static str>,
    skipped: usize,
    filtered: usize,
}

impl<W> Suite<W> {
    /// A suite without tests; `prepare` makes what its tests share out of a bare world.
    #[must_use]
    pub fn new(name: &'static str, prepare: fn(World) -> Result<W>) -> Self {
        Self { name, ground: Ground::World(prepare), tests: Vec::new(), programs: &[], wheels: &[] }
    }

    /// A suite without tests that needs no world; `prepare` makes what its tests share, or says by [`skip`] why they cannot run here.
    #[must_use]
    pub fn without_world(name: &'static str, prepare: fn() -> Result<W>) -> Self {
        Self { name, ground: Ground::Machine(prepare), tests: Vec::new(), programs: &[], wheels: &[] }
    }

    /// Names programs of this package that its tests need besides the usual ones.
    #[must_use]
    pub fn with_programs(self, programs: &'static [&'static str]) -> Self {
        Self { programs, ..self }
    }

    /// Names programs of PyPI its tests need; without one they are skipped.
    #[must_use]
    pub fn with_wheels(self, wheels: &'static [&'static tools::Wheel]) -> Self {
        Self { wheels, ..self }
    }

    /// Adds a test.
    #[must_use]
    pub fn test(mut self, name: &'static str, test: Test<W>) -> Self {
        self.tests.push((name, test));
        self
    }

    /// The `main` of a test file.
    #[must_use]
    pub fn main(self) -> ExitCode {
        let arguments = Arguments::parse();
        match self.run(&arguments) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("{}: {error:#}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    fn run(&self, arguments: &Arguments) -> Result<ExitCode> {
        if arguments.list {
            self.tests.iter().for_each(|(name, _)| println!("{name}: test"));
            return Ok(ExitCode::SUCCESS);
        }
        if arguments.place.stage == Stage::Outside {
            if self.tests.iter().all(|(name, _)| !arguments.wants(name)) {
                let count = Count { filtered: self.tests.len(), ..Count::default() };
                return Ok(count.result(Instant::now()));
            }
            tools::prepare()?;
            if let Ground::Machine(prepare) = self.ground {
                return match prepare() {
                    Ok(subject) => Ok(self.each(arguments, subject)),
                    Err(error) => match error.downcast_ref::<Skip>() {
                        Some(why) => Ok(self.all_skipped(arguments, &why.0)),
                        None => Err(error),
                    },
                };
            }
            if let Some(error) = self.wheels.iter().find_map(|wheel| wheel.fetch().err()) {
                return Ok(self.all_skipped(arguments, &format!("{error:#}")));
            }
            programs::build(self.programs, false)?;
        }
        match arguments.place.enter(self.name)? {
            Entered::Inside => self.inside(arguments),
            Entered::Ended(code) => Ok(code),
            Entered::Refused(why) => Ok(self.all_skipped(arguments, &why)),
        }
    }

    fn inside(&self, arguments: &Arguments) -> Result<ExitCode> {
        let Ground::World(prepare) = self.ground else { return Err(anyhow!("this suite has no world to run in")) };
        let world = prepare(World::create(&arguments.place.state)?).map_err(|error| {
            self.print_logs(arguments);
            error.context("the world of these tests could not be set up")
        })?;
        Ok(self.each(arguments, world))
    }

    /// Runs the tests one after the other.
    fn each(&self, arguments: &Arguments, mut subject: W) -> ExitCode {
        let start = Instant::now();
        let wanted: Vec<_> = self.tests.iter().filter(|(name, _)| arguments.wants(name)).collect();
        println!("\nrunning {} tests", wanted.len());
        let mut count = Count { filtered: self.tests.len() - wanted.len(), ..Count::default() };
        for (name, test) in wanted {
            let since = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| test(&mut subject)))
                .unwrap_or_else(|panic| Err(anyhow!("panicked: {}", panic_text(panic.as_ref()))));
            count.note(name, outcome, since, arguments);
        }
        if !count.failed.is_empty() && matches!(self.ground, Ground::World(_)) {
            self.print_logs(arguments);
        }
        count.result(start)
    }

    fn all_skipped(&self, arguments: &Arguments, why: &str) -> ExitCode {
        let start = Instant::now();
        let mut count = Count::default();
        println!("\nrunning {} tests", self.tests.iter().filter(|(name, _)| arguments.wants(name)).count());
        for (name, _) in self.tests.iter().filter(|(name, _)| arguments.wants(name)) {
            count.note(name, Err(skip(why)), start, arguments);
        }
        count.result(start)
    }

    fn print_logs(&self, arguments: &Arguments) {
        let logs = arguments.place.state.join("logs");
        println!("\nlogs are in {}; their ends:", logs.display());
        let mut files: Vec<_> =
            std::fs::read_dir(&logs).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            let end = process::tail(&file, 12);
            if !end.is_empty() {
                println!("---- {}\n{end}", file.file_name().unwrap_or_default().display());
            }
        }
    }
}

impl Arguments {
    fn wants(&self, name: &str) -> bool {
        let hit = |filter: &String| if self.exact { filter == name } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(hit)) && !self.skip.iter().any(hit)
    }
}

impl Count {
    fn note(&mut self, name: &'static str, outcome: Result<()>, since: Instant, arguments: &Arguments) {
        let seconds = since.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => match error.downcast_ref::<Skip>() {
                Some(why) if arguments.strict => {
                    self.failed.push(name);
                    println!("test {name} ... FAILED\n    skipped, which CI does not allow: {why}");
                }
                Some(why) => {
                    self.skipped += 1;
                    println!("test {name} ... ignored, {why}");
                }
                None => {
                    self.failed.push(name);
                    println!("test {name} ... FAILED ({seconds:.1} s)\n    {error:#}");
                }
            },
        }
    }

    fn result(&self, start: Instant) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:\n    {}", self.failed.join("\n    "));
        }
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
            if self.failed.is_empty() { "ok" } else { "FAILED" },
            self.passed,
            self.failed.len(),
            self.skipped,
            self.filtered,
            start.elapsed().as_secs_f32()
        );
        // libtest's status for failed tests.
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?")
}
