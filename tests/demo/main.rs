// SPDX-License-Identifier: Apache-2.0
//! `cargo demo`: the mesh on two nodes of one machine, shown step by step with real programs: a listener on the wire between the nodes, Envoy as a waypoint.
//!
//! Needs no root and leaves nothing behind. Ends with status 0 only if every step held.

mod enrolment;
mod keep;
mod report;
mod story;
mod visitors;
mod waypoint;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use harness::{
    Mesh, World,
    enter::{Entered, Place, Stage},
    programs, tools,
};

use crate::{
    report::Report,
    story::{ACTS, Story},
};

/// Two nodes, their pods and the mesh between them, shown step by step.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Run the objects of this directory instead of the story: its Pods are started (`spec.containers[].command`), one with the label
    /// `gateway.networking.k8s.io/gateway-name` as a waypoint; its labels, routes and policies are obeyed.
    #[arg(long, value_name = "YAML")]
    dir: Option<PathBuf>,
    /// Leave everything up at the end, and say how to get in.
    #[arg(long)]
    keep: bool,
    /// Print access-log lines and other details.
    #[arg(long)]
    verbose: bool,

    /// Count a step that cannot be shown on this machine as failed.
    #[arg(long, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    strict: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("demo: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.place.stage == Stage::Outside {
        tools::prepare()?;
        if let Err(error) = tools::ENVOY.fetch() {
            eprintln!("{error:#}");
        }
        println!("Building ztunnel, cni-agent and waypoint-config (the first time takes some minutes) ...");
        programs::build(&["lateen-waypoint"], true)?;
    }
    match arguments.place.enter("demo")? {
        Entered::Inside => inside(arguments),
        Entered::Ended(code) => Ok(code),
        Entered::Refused(why) => anyhow::bail!(why),
    }
}

fn inside(arguments: &Arguments) -> Result<ExitCode> {
    let since = Instant::now();
    println!("Starting two nodes, and on them the control plane, two proxies and two agents ...");
    let mut world = World::create(&arguments.place.state).context("build the world")?;
    let mut mesh = Mesh::start(&mut world).context("start the mesh")?;
    println!("  up in {:.1} s; logs in {}", since.elapsed().as_secs_f32(), world.logs().display());
    match &arguments.dir {
        None => tell(world, mesh, arguments),
        Some(folder) => show(world, &mut mesh, folder, arguments),
    }
}

fn tell(world: World, mesh: Mesh, arguments: &Arguments) -> Result<ExitCode> {
    let mut report = Report::new(arguments.verbose, arguments.strict, world.logs());
    let mut story = Story::new(world, mesh);
    report.play(&mut story, ACTS);
    let good = report.close();
    if arguments.keep {
        keep::explain(&story.world, None)?;
        keep::stay(&mut story.world, &mut story.mesh, None)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(mut world: World, mesh: &mut Mesh, folder: &std::path::Path, arguments: &Arguments) -> Result<ExitCode> {
    let mut directory = keep::Directory::default();
    directory.follow(folder, &mut world)?;
    let settled = directory.waypoints(&world, mesh).and_then(|()| mesh.settle(&world));
    println!();
    keep::table(&world)?;
    if let Err(error) = &settled {
        println!("  ✗ {error:#}");
    }
    if arguments.keep {
        keep::explain(&world, Some(folder))?;
        keep::stay(&mut world, mesh, Some((directory, folder)))?;
    }
    Ok(if settled.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
