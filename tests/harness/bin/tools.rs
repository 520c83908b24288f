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
    /// Install missing ones (as root, on Debian).
    #[arg(long)]
    install: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.install {
        tools::prepare()?;
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
    }
    Ok(())
}
