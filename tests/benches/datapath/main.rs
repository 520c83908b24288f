// SPDX-License-Identifier: Apache-2.0
//! `cargo bench --bench datapath`: the same client and server pods connected four ways in one run (directly, through a pair of proxies of the ordinary design,
//! through Envoy, and through the mesh of this repository with everything on), case by case, in alternation; medians, and ratios to the ordinary design.
//!
//! `-- up1 rr32` measures only those cases, `--variants`, `--rounds` and `--seconds` what they say, `--quick` everything for a moment to see that it works.
//! Without `--bench`, as under `cargo test --benches`, it is such a moment with the programs of that profile. It needs no root; see `harness::enter`.

mod case;
mod envoy;
mod measure;
mod report;
mod results;
mod rig;
mod target;
mod usage;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use harness::{
    World,
    enter::{Entered, Place, Stage, profile_folder},
    programs, tools,
};

use crate::{
    case::{CASES, Case, HELD, Variant},
    measure::{Pace, measure},
    report::Run,
    results::Results,
    rig::Rig,
};

/// Measures the data path of the mesh beside others.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The cases; all if none is named. Names of no case are other benches' and ignored.
    cases: Vec<String>,
    /// The variants to compare.
    #[arg(long, value_enum, value_delimiter = ',')]
    variants: Vec<Variant>,
    /// How often each case is measured on each variant [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// How long each measurement takes [default: 2.5].
    #[arg(long, value_parser = seconds)]
    seconds: Option<Duration>,
    /// Connections held in the case `hold`.
    #[arg(long, default_value_t = HELD)]
    held: usize,
    /// Once, and shortly: shows that the bench works, not how fast anything is.
    #[arg(long)]
    quick: bool,
    /// Another `ztunnel` than the one that was built with this bench.
    #[arg(long, value_name = "PROGRAM")]
    ztunnel: Option<PathBuf>,
    /// Where the results go as JSON; `datapath.json` in the target folder if not given, with the Markdown form beside it.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the cases and stop.
    #[arg(long)]
    list: bool,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    #[arg(long, hide = true)]
    test: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, short = 'q', hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    format: Option<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("datapath: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        CASES.iter().for_each(|case| println!("{}: benchmark", case.name));
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.cases().is_empty() {
        println!(
            "datapath: no case of that name; there are {}",
            CASES.iter().map(|case| case.name).collect::<Vec<_>>().join(", ")
        );
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.place.stage == Stage::Outside {
        tools::prepare()?;
        if arguments.wanted().contains(&Variant::Envoy)
            && let Err(error) = tools::ENVOY.fetch()
        {
            eprintln!("no Envoy: {error:#}");
        }
        println!("Building the programs (the first time takes some minutes) ...");
        programs::build(&["baseline", "load"], true)?;
    }
    match arguments.place.enter("datapath")? {
        Entered::Inside => inside(arguments),
        Entered::Ended(code) => Ok(code),
        Entered::Refused(why) if arguments.is_test() => {
            println!("test datapath ... ignored, {why}");
            Ok(ExitCode::SUCCESS)
        }
        Entered::Refused(why) => bail!(why),
    }
}

fn inside(arguments: &Arguments) -> Result<ExitCode> {
    if let Some(program) = &arguments.ztunnel {
        programs::use_ztunnel(program.clone())?;
    }
    let (rounds, pace) = arguments.pace();
    let (variants, skipped) = arguments.variants();
    let cases = arguments.cases();
    println!("{}", report::machine());
    let world = World::create(&arguments.place.state).context("build the world")?;
    let mut rig = Rig::build(world, &variants)?;
    let mut results = Results::default();
    results.resident.clone_from(&rig.resident);
    for round in 0..rounds {
        for (place, case) in &cases {
            eprint!("round {} of {rounds}: {:<11}", round + 1, case.name);
            // Another one begins each time, so that none always has the place behind the same neighbour.
            for turn in 0..variants.len() {
                let variant = variants[(turn + round) % variants.len()];
                if variant.takes(case) {
                    let sample = measure(&mut rig, variant, case, pace).with_context(|| {
                        format!("{} on {variant}; logs in {}", case.name, rig.world.logs().display())
                    })?;
                    eprint!(" {variant}");
                    results.add(*place, variant, sample);
                }
            }
            eprintln!();
        }
    }
    let folder = profile_folder()?;
    let profile = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let run = Run { rounds, pace, profile, skipped };
    println!("{}", report::table(&results, &run));
    let json = arguments.json.clone().unwrap_or_else(|| folder.join("../datapath.json"));
    fs::write(&json, serde_json::to_string_pretty(&report::document(&results, &run))?)
        .and_then(|()| fs::write(json.with_extension("md"), report::markdown(&results, &run)))
        .with_context(|| format!("write {}", json.display()))?;
    println!("also in {} and .md", json.canonicalize()?.display());
    Ok(ExitCode::SUCCESS)
}

fn seconds(text: &str) -> Result<Duration> {
    let window = Duration::try_from_secs_f64(text.parse()?)?;
    ensure!(window >= SHORTEST, "at least {} s, or processor time cannot be told", SHORTEST.as_secs_f32());
    Ok(window)
}

/// Ten ticks of the clock that processor time is counted in.
const SHORTEST: Duration = Duration::from_millis(100);

impl Arguments {
    /// Started neither by `cargo bench` nor with a wish of its own.
    fn is_test(&self) -> bool {
        let wishes = self.rounds.is_some() || self.seconds.is_some() || self.quick;
        self.test || !self.bench && self.cases.is_empty() && self.variants.is_empty() && !wishes
    }

    fn cases(&self) -> Vec<(usize, &'static Case)> {
        let wanted = |case: &Case| self.cases.is_empty() || self.cases.iter().any(|name| name == case.name);
        CASES.iter().enumerate().filter(|(_, case)| wanted(case)).collect()
    }

    fn wanted(&self) -> Vec<Variant> {
        if self.variants.is_empty() { Variant::ALL.to_vec() } else { self.variants.clone() }
    }

    /// What can run here, and what cannot with the reason.
    fn variants(&self) -> (Vec<Variant>, Vec<(Variant, String)>) {
        let mut skipped = Vec::new();
        let variants = self
            .wanted()
            .into_iter()
            .filter(|variant| match variant {
                Variant::Envoy => match tools::ENVOY.find() {
                    Ok(_) => true,
                    Err(why) => {
                        skipped.push((*variant, format!("{why:#}")));
                        false
                    }
                },
                _ => true,
            })
            .collect();
        (variants, skipped)
    }

    fn pace(&self) -> (usize, Pace) {
        let quick = self.quick || self.is_test();
        let millis = |quickly, properly| Duration::from_millis(if quick { quickly } else { properly });
        let window = self.seconds.unwrap_or_else(|| millis(300, 2500));
        let pace = Pace { warm_up: millis(200, 700), window, held: if quick { 200 } else { self.held } };
        (self.rounds.unwrap_or(if quick { 1 } else { 3 }) as usize, pace)
    }
}
