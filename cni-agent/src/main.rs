// SPDX-License-Identifier: Apache-2.0
//! The node agent: reads its configuration, starts the program, waits for its end.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use cni_agent::app;
use cni_agent::config::Config;
use mesh_common::lifecycle::{Shutdown, Tasks};
use mesh_common::telemetry;

fn main() -> ExitCode {
    let config = Config::parse();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cni-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    let options = telemetry::Options {
        format: config.log_format.into(),
        filter: config.log.clone(),
        quiet: "",
        program: "cni_agent",
    };
    let telemetry = telemetry::init(&options).context("logging")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
    let result = runtime.block_on(async {
        let tasks = Tasks::new();
        let shutdown = Shutdown::listen(&tasks).context("signals")?;
        app::run(config, telemetry.clone(), tasks, shutdown).await?;
        Ok(())
    });
    telemetry.flush(Duration::from_secs(1));
    result
}
