// SPDX-License-Identifier: Apache-2.0
//! The command line for people: what would become of a directory of objects.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_proto::contract::default;
use serde_json::Value;
use waypoint_config::preview::{self, Verdict};
use waypoint_config::source::files::{Directory, Options};
use waypoint_config::source::{Batch, Fault};
use waypoint_config::view::{Mesh, Name};

/// Looks at the objects of a mesh, without a running control plane and without a cluster.
///
/// Ends with 0 if all is well, with 1 if `validate` finds something refused or `render --diff` something that differs, and with 2 if it cannot do what it is
/// asked for.
#[derive(Debug, Parser)]
#[command(name = "lateen", version, arg_required_else_help = true, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print what waypoints and node proxies would be sent. Equal objects give equal text.
    ///
    /// Waypoints get Envoy's clusters, endpoints, listeners and routes (as for stock Envoy), node proxies the addresses of workloads and services and
    /// authorization policies. What is wrong with objects is printed to the standard error; the rest is rendered all the same, as the control plane would.
    Render {
        #[command(flatten)]
        input: Input,
        /// Only what this waypoint is sent.
        #[arg(long, value_name = "NAMESPACE/NAME", value_parser = name)]
        waypoint: Option<Name>,
        /// How it is printed.
        #[arg(long, value_enum, default_value_t = Format::Yaml)]
        output: Format,
        /// Print only what differs in this other directory, by path: `-` is not there, `+` is only there, `~` is another there. Ends with 1 if anything
        /// differs.
        #[arg(long, value_name = "DIRECTORY", conflicts_with = "output")]
        diff: Option<PathBuf>,
    },
    /// Print what the author of every object is told: what cannot be read and why, and its conditions. Ends with 1 if anything is refused.
    ///
    /// A line begins with `ok` or `bad`, then comes the object, the place in it (a parent of a route, a listener of a Gateway), and the condition with its
    /// reason and message. The running control plane writes the same conditions below `status/waypoint-config/` in the directory.
    Validate {
        #[command(flatten)]
        input: Input,
        /// Print only what is refused.
        #[arg(long, short)]
        quiet: bool,
    },
}

#[derive(Debug, Args)]
struct Input {
    /// The directory of YAML, with the folder `status` of what programs observed, if there is one.
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,

    /// The trust domain of all identities.
    #[arg(long, env = "TRUST_DOMAIN", value_name = "DOMAIN", default_value = default::TRUST_DOMAIN)]
    trust_domain: String,

    /// The cluster's id.
    #[arg(long, env = "CLUSTER_ID", value_name = "ID", default_value = default::CLUSTER_ID)]
    cluster_id: String,

    /// The DNS suffix of services.
    #[arg(long, env = "CLUSTER_DOMAIN", value_name = "DOMAIN", default_value = default::CLUSTER_DOMAIN)]
    cluster_domain: String,

    /// The mesh's own namespace, whose policies hold everywhere.
    #[arg(long, env = "LATEEN_SYSTEM_NAMESPACE", value_name = "NAMESPACE", default_value = default::SYSTEM_NAMESPACE)]
    system_namespace: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    Yaml,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        // Whoever reads has read enough.
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lateen: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Validate { input, quiet } => validate(&input, quiet),
        Command::Render { input, waypoint, output, diff } => {
            let rendered = render(&input, &input.dir, waypoint.as_ref())?;
            let Some(other) = diff else {
                let text = match output {
                    Format::Json => serde_json::to_string_pretty(&rendered)?,
                    Format::Yaml => serde_saphyr::to_string(&rendered)?,
                };
                print([text.trim_end()])?;
                return Ok(ExitCode::SUCCESS);
            };
            let found = preview::differences(&rendered, &render(&input, &other, waypoint.as_ref())?);
            print(found.iter().map(String::as_str))?;
            Ok(ExitCode::from(u8::from(!found.is_empty())))
        }
    }
}

fn validate(input: &Input, quiet: bool) -> anyhow::Result<ExitCode> {
    let batch = read(&input.dir)?;
    let faults = batch.faults.clone();
    let line = preview::line(mesh(input), batch);
    // What cannot be read has a line of its own with its place in a file, and need not be told twice.
    let is_told = |verdict: &Verdict| {
        verdict.condition.kind == "Accepted"
            && faults.iter().any(|fault| !fault.observed && fault.object.as_ref() == Some(&verdict.object))
    };
    let verdicts: Vec<Verdict> = preview::verdicts(&line, &faults).into_iter().filter(|one| !is_told(one)).collect();
    let refused = faults.len() + verdicts.iter().filter(|one| one.condition.is_bad()).count();
    let mut lines: Vec<String> = faults.iter().map(|fault| format!("bad  {fault}")).collect();
    lines.extend(verdicts.iter().filter(|one| !quiet || one.condition.is_bad()).map(told));
    if !quiet {
        let objects = line.store().objects().count();
        lines.push(format!("{objects} objects are taken in; {refused} things are refused"));
    }
    print(lines.iter().map(String::as_str))?;
    Ok(ExitCode::from(u8::from(refused > 0)))
}

fn told(verdict: &Verdict) -> String {
    let Verdict { object, at, condition } = verdict;
    let mark = if condition.is_bad() { "bad" } else { "ok " };
    let at = if at.is_empty() { String::new() } else { format!(": {at}") };
    let holds = if condition.holds { "True" } else { "False" };
    format!("{mark}  {object}{at}: {}={holds} ({}): {}", condition.kind, condition.reason, condition.message)
}

fn render(input: &Input, dir: &Path, waypoint: Option<&Name>) -> anyhow::Result<Value> {
    let batch = read(dir)?;
    batch.faults.iter().for_each(|fault: &Fault| eprintln!("{fault}"));
    let line = preview::line(mesh(input), batch);
    let Some(waypoint) = waypoint else { return preview::everything(&line).context("rendering") };
    if let Some(rendered) = preview::waypoint(&line, waypoint).context("rendering")? {
        return Ok(rendered);
    }
    let there: Vec<String> = preview::waypoints(&line).map(ToString::to_string).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    bail!(
        "{} has no waypoint {waypoint}; there are: {there}. A waypoint is a Gateway of class istio-waypoint with an address in spec.addresses or \
         status.addresses; `lateen validate` tells what is missing",
        dir.display()
    );
}

fn read(dir: &Path) -> anyhow::Result<Batch> {
    // The control plane reads its callers' keys from there.
    let options = Options { ignored: vec![dir.join("jwks.json")], ..Options::new(dir) };
    Ok(Directory::open(options).context("--dir and --diff")?.read())
}

fn mesh(input: &Input) -> Mesh {
    Mesh {
        trust_domain: input.trust_domain.clone(),
        cluster_id: input.cluster_id.clone(),
        cluster_domain: input.cluster_domain.clone(),
        root_namespace: input.system_namespace.clone(),
    }
}

fn print<'a>(lines: impl IntoIterator<Item = &'a str>) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

fn name(text: &str) -> Result<Name, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Name::new(namespace, name))
        }
        _ => Err("write it as NAMESPACE/NAME".to_owned()),
    }
}
