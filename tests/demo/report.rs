// SPDX-License-Identifier: Apache-2.0
//! What a person sees: each step as it happens, why one did not hold, and the table at the end.

use std::{
    fmt::{self, Display},
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Error, Result};
use harness::process::tail;

/// The printed story so far.
#[derive(Debug)]
pub(crate) struct Report {
    verbose: bool,
    /// A step left out counts as failed.
    strict: bool,
    logs: PathBuf,
    rows: Vec<Row>,
    /// How many steps so far.
    played: usize,
}

#[derive(Debug)]
struct Row {
    title: &'static str,
    outcome: Outcome,
    took: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Held,
    Failed,
    LeftOut(String),
}

/// Steps that belong together.
pub(crate) struct Act<S: 'static> {
    /// One line above them.
    pub(crate) title: &'static str,
    /// Whether it can be shown on this machine; the error says what is missing.
    pub(crate) needs: fn() -> Result<()>,
    /// The steps in order; each counts on those before it.
    pub(crate) steps: &'static [Step<S>],
}

/// What one step looks like.
pub(crate) struct Step<S> {
    /// One line, in the table too.
    pub(crate) title: &'static str,
    /// What it shows; the lines it returns are printed under the title.
    pub(crate) act: fn(&mut S, &mut Report) -> Result<()>,
    /// Logs that may explain a failure.
    pub(crate) logs: &'static [&'static str],
}

/// A step that cannot be shown here, with the reason.
#[derive(Debug)]
pub(crate) struct LeftOut(pub(crate) String);

impl Display for LeftOut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for LeftOut {}

/// Holds what was expected against what was seen.
pub(crate) fn expect(expected: impl Display, seen: impl Display, holds: bool) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::msg(format!("expected: {expected}\nseen:     {seen}"))) }
}

impl Report {
    pub(crate) fn new(verbose: bool, strict: bool, logs: PathBuf) -> Self {
        Self { verbose, strict, logs, rows: Vec::new(), played: 0 }
    }

    /// A finding of the step that runs now.
    pub(crate) fn say(&mut self, line: impl Display) {
        for line in line.to_string().lines() {
            println!("      {line}");
        }
    }

    /// The same, only for those who asked for more.
    pub(crate) fn detail(&mut self, line: impl Display) {
        if self.verbose {
            self.say(line);
        }
    }

    /// Plays the acts until a step does not hold.
    pub(crate) fn play<S>(&mut self, story: &mut S, acts: &[Act<S>]) {
        let mut failed = false;
        for act in acts {
            println!("\n {}", act.title);
            if failed {
                self.leave_out(act.title, "not tried".to_owned());
            } else if let Err(missing) = (act.needs)() {
                self.leave_out(act.title, format!("{missing:#}"));
            } else {
                failed = !self.play_act(story, act);
            }
        }
    }

    /// False if a step did not hold.
    fn play_act<S>(&mut self, story: &mut S, act: &Act<S>) -> bool {
        for (number, step) in act.steps.iter().enumerate() {
            self.played += 1;
            println!("\n {:>2}. {}", self.played, step.title);
            let _ = std::io::stdout().flush();
            let since = Instant::now();
            let outcome = match (step.act)(story, self) {
                Ok(()) => Outcome::Held,
                Err(error) => match error.downcast_ref::<LeftOut>() {
                    Some(why) => Outcome::LeftOut(why.0.clone()),
                    None => {
                        self.explain(&error, step.logs);
                        Outcome::Failed
                    }
                },
            };
            let took = since.elapsed();
            match &outcome {
                Outcome::Held => println!("    ✓ {:.1} s", took.as_secs_f32()),
                Outcome::Failed => println!("    ✗ did not hold ({:.1} s)", took.as_secs_f32()),
                Outcome::LeftOut(why) => println!("    – left out: {why}"),
            }
            let failed = outcome == Outcome::Failed;
            self.rows.push(Row { title: step.title, outcome, took });
            if failed {
                for left in &act.steps[number + 1..] {
                    let outcome = Outcome::LeftOut("not tried".to_owned());
                    self.rows.push(Row { title: left.title, outcome, took: Duration::ZERO });
                }
                return false;
            }
        }
        true
    }

    fn leave_out(&mut self, title: &'static str, why: String) {
        println!("    – left out: {why}");
        self.rows.push(Row { title, outcome: Outcome::LeftOut(why), took: Duration::ZERO });
    }

    fn explain(&mut self, error: &Error, logs: &[&str]) {
        self.say(format!("{error:#}"));
        for name in logs {
            let file = self.logs.join(format!("{name}.log"));
            println!("      -- the end of {}", file.display());
            self.say(tail(&file, 12));
        }
    }

    /// Prints the table; true if every step that was tried held and none is missing because of an earlier one.
    pub(crate) fn close(&self) -> bool {
        let width = self.rows.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
        println!("\n  {}", "─".repeat(width + 16));
        for row in &self.rows {
            let (mark, note) = match &row.outcome {
                Outcome::Held => ("✓", format!("{:>5.1} s", row.took.as_secs_f32())),
                Outcome::Failed => ("✗", "failed".to_owned()),
                Outcome::LeftOut(why) => ("–", why.clone()),
            };
            println!("  {mark} {:<width$}  {note}", row.title);
        }
        println!("  {}", "─".repeat(width + 16));
        let left_out = self.rows.iter().filter(|row| matches!(row.outcome, Outcome::LeftOut(_))).count();
        let good = self.rows.iter().all(|row| row.outcome != Outcome::Failed);
        match (good, left_out) {
            (true, 0) => println!("  Every step held.\n"),
            (true, left_out) => println!("  Every step that could be tried held; {left_out} left out.\n"),
            (false, _) => println!("  Not every step held.\n"),
        }
        good && (left_out == 0 || !self.strict)
    }
}
