// SPDX-License-Identifier: Apache-2.0
//! The control plane: reads its configuration, starts the program, waits for its end.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use mesh_common::lifecycle::{Shutdown, Tasks};
use mesh_common::telemetry;
use tracing::error;
use waypoint_config::app::App;
use waypoint_config::config::Config;
use waypoint_config::source::files::Directory;

fn main() -> ExitCode {
    let config = Config::parse();
    match run(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypoint-config: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: &Config) -> anyhow::Result<()> {
    let options = telemetry::Options {
        format: config.log_format.into(),
        filter: config.log.clone(),
        quiet: "",
        program: "waypoint_config",
    };
    let telemetry = telemetry::init(&options).context("logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("threads")?;
    let result = runtime.block_on(async {
        let tasks = Tasks::new();
        let shutdown = Shutdown::listen(&tasks).context("signals")?;
        let source = Directory::open(config.source_options()).context("--source")?;
        let (said, batches) = tokio::sync::mpsc::channel(1);
        tasks.spawn_background("source", async move {
            if let Err(error) = source.run(said).await {
                error!("{error}");
            }
        });
        let app = App::start(config, batches, telemetry.clone(), tasks, shutdown).await?;
        app.run().await;
        Ok(())
    });
    telemetry.flush(std::time::Duration::from_secs(1));
    result
}
