// SPDX-License-Identifier: Apache-2.0
//! The launcher beside Envoy in a waypoint: reads its configuration, runs Envoy, ends as Envoy ended.

use std::process::ExitCode;

use clap::Parser as _;
use mesh_common::lifecycle::Tasks;
use mesh_common::telemetry;
use waypoint_config::waypoint::{app, config::Config};

fn main() -> ExitCode {
    let config = Config::parse();
    let options = telemetry::Options {
        format: config.log_format.into(),
        filter: config.log.clone(),
        quiet: "",
        program: "waypoint_config",
    };
    let ended = telemetry::init(&options).map_err(|error| error.to_string()).and_then(|telemetry| {
        // One thread: Envoy is bound to the life of the thread that starts it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let ended = runtime.block_on(async {
            let tasks = Tasks::new();
            let ended = app::run(&config, &tasks).await;
            tasks.finished().await;
            ended
        });
        telemetry.flush(std::time::Duration::from_secs(1));
        ended.map_err(|error| error.to_string())
    });
    match ended {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("lateen-waypoint: {error}");
            ExitCode::FAILURE
        }
    }
}
