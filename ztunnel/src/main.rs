// SPDX-License-Identifier: Apache-2.0
//! The node proxy: reads what it is told, once, and runs.

use std::fmt::Display;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use mesh_common::telemetry;
use ztunnel::app;
use ztunnel::config::{Args, Command, Config, Environment, MESH_CONFIG_PATH, World};
use ztunnel::control_plane::explain;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A thread of the allocator's own gives back what a peak has left: an idle process allocates nothing, which is when others do so. It is
/// started before any of ours, hence never in a pod's namespace.
// SAFETY: jemalloc reads `const char *_rjem_malloc_conf`; a reference to an array is such a pointer, and the text ends in a zero.
#[cfg(feature = "jemalloc")]
#[expect(unsafe_code, reason = "the allocator takes its settings by the name of a symbol")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_SETTINGS: &[u8; 48] = b"background_thread:true,max_background_threads:1\0";

fn main() -> ExitCode {
    let args = Args::parse();
    match args.wanted() {
        Ok(Command::Proxy) => proxy(&args),
        Ok(Command::Version) => say(&Args::command().render_version()),
        Ok(Command::Help) => say(&Args::command().render_long_help()),
        Err(error) => {
            eprintln!("{error}\n\n{}", Args::command().render_usage());
            ExitCode::FAILURE
        }
    }
}

/// A reader that does not read to the end is no failure.
fn say(text: &dyn Display) -> ExitCode {
    let _ = write!(std::io::stdout(), "{text}");
    ExitCode::SUCCESS
}

fn proxy(args: &Args) -> ExitCode {
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let exists = |path: &Path| path.exists();
    let world = World {
        environment: Environment::new(variables),
        mesh_config: std::fs::read_to_string(MESH_CONFIG_PATH).ok(),
        exists: &exists,
    };
    let config = match Config::resolve(args, &world) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let telemetry = match telemetry::init(&config.telemetry) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            eprintln!("cannot log: {}", explain(&error));
            return ExitCode::FAILURE;
        }
    };
    let ended = app::run(config, &telemetry);
    if let Err(error) = &ended {
        let error = explain(error);
        tracing::error!(error, "ztunnel ends");
        eprintln!("ztunnel ends: {error}");
    }
    telemetry.flush(LAST_LINES);
    if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A reader of the log that stands still does not keep the process from ending.
const LAST_LINES: Duration = Duration::from_secs(1);
