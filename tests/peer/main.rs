// SPDX-License-Identifier: Apache-2.0
//! `peer`: the small program that tests run in pods, a server and clients for what curl and redis cannot show: who is calling, half-close, resets, digests
//! of large transfers, connections that stay open. It is also the launcher that enters a network namespace before it becomes another program.

mod attack;
mod authorizer;
mod client;
mod collector;
mod content;
mod grpc;
mod load;
mod server;
mod stranger;

use std::{
    fs::File,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns},
};

/// The test program in pods.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Enter a network namespace and become another program.
    In {
        /// Path of the network namespace.
        netns: PathBuf,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        line: Vec<String>,
    },
    /// Do nothing for ever, as a pause container.
    Pause {
        /// What others shall find in this process's `/proc/<pid>/cgroup`.
        group: PathBuf,
        /// A file to make once that is so.
        holds: PathBuf,
    },
    /// Serve on a port; the first line of a connection says what it is for (see `server.rs`).
    Serve {
        /// The port, on all addresses of both families.
        port: u16,
        /// What the server calls itself.
        #[arg(default_value = "peer")]
        name: String,
    },
    /// Answer Envoy's questions whether a request may pass: with the header `x-authz: allow` it may.
    Authorize {
        /// The port.
        port: u16,
    },
    /// Take in spans over OpenTelemetry's gRPC, and print a line for every export.
    Collect {
        /// The port.
        port: u16,
    },
    /// Open a connection and send each line of standard input, printing the line that comes back.
    Talk {
        /// Where to.
        to: SocketAddr,
    },
    /// Send bytes, close one direction, and compare the digest that comes back.
    Upload {
        /// Where to.
        to: SocketAddr,
        /// How many.
        bytes: u64,
    },
    /// Fetch bytes until the server closes, and compare digests.
    Download {
        /// Where from.
        to: SocketAddr,
        /// How many.
        bytes: u64,
    },
    /// Close one direction at once and print what still comes the other way.
    HalfClose {
        /// Where to.
        to: SocketAddr,
    },
    /// Print the address the server sees.
    Who {
        /// Where to.
        to: SocketAddr,
    },
    /// Print what the server calls itself.
    Name {
        /// Where to.
        to: SocketAddr,
    },
    /// Open a connection, exchange a line, and reset it.
    Reset {
        /// Where to.
        to: SocketAddr,
    },
    /// Ask the server to reset the connection and print how that was felt.
    AwaitReset {
        /// Where to.
        to: SocketAddr,
    },
    /// Open one connection after another, each for one question, until standard input is closed; print how many failed, and why the first.
    Storm {
        /// Where to.
        to: SocketAddr,
    },
    /// Open connections and move bytes all the time, until standard input is closed; each line of it is answered with the account so far.
    Load {
        /// How many at once.
        threads: usize,
        /// Milliseconds between two operations of a thread.
        rest: u64,
        /// Where to.
        #[arg(required = true)]
        to: Vec<SocketAddr>,
    },
    /// Ask for bytes and stop reading them, until standard input is closed.
    Stall {
        /// Where from.
        to: SocketAddr,
        /// How many.
        bytes: u64,
        /// After how many it stops.
        #[arg(default_value_t = 1)]
        after: u64,
    },
    /// Send to a server that stops reading after some bytes, until no more can be sent; keep the connection until standard input is closed.
    Pour {
        /// Where to.
        to: SocketAddr,
        /// After how many bytes the server stops.
        bytes: u64,
    },
    /// Knock at an HBONE port with a certificate of nobody's, claiming to be `identity`.
    Stranger {
        /// Where to.
        to: SocketAddr,
        /// The SPIFFE id to claim.
        identity: String,
    },
    /// Serve gRPC on a port (see `grpc`).
    ServeGrpc {
        /// The port, on all addresses of both families.
        port: u16,
        /// What the server calls itself.
        name: String,
    },
    /// Call a gRPC server.
    Grpc(grpc::Call),
    /// Do what no peer should (see `attack`).
    Attack(attack::Attack),
}

fn main() -> Result<()> {
    match Arguments::parse().role {
        Role::In { netns, line } => become_another(&netns, &line),
        Role::Pause { group, holds } => pause(&group, &holds),
        Role::Serve { port, name } => server::serve(port, &name),
        Role::Authorize { port } => authorizer::serve(port),
        Role::Collect { port } => collector::serve(port),
        Role::Talk { to } => client::talk(to),
        Role::Upload { to, bytes } => client::upload(to, bytes),
        Role::Download { to, bytes } => client::download(to, bytes),
        Role::HalfClose { to } => client::half_close(to),
        Role::Who { to } => client::question(to, "who"),
        Role::Name { to } => client::question(to, "name"),
        Role::Reset { to } => client::reset(to),
        Role::AwaitReset { to } => client::await_reset(to),
        Role::Storm { to } => client::storm(to),
        Role::Load { threads, rest, to } => load::load(&to, threads, Duration::from_millis(rest)),
        Role::Stall { to, bytes, after } => client::stall(to, bytes, after),
        Role::Pour { to, bytes } => client::pour(to, bytes),
        Role::Stranger { to, identity } => stranger::knock(to, &identity),
        Role::ServeGrpc { port, name } => grpc::serve(port, &name),
        Role::Grpc(call) => grpc::call(&call),
        Role::Attack(attack) => attack::attack(&attack),
    }
}

fn pause(group: &Path, holds: &Path) -> Result<()> {
    // From within, for only this process is sure of its own number in whatever /proc there is.
    mount(Some(group), "/proc/self/cgroup", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .context("cover /proc/self/cgroup")?;
    File::create(holds).with_context(|| format!("make {}", holds.display()))?;
    loop {
        std::thread::park();
    }
}

fn become_another(netns: &PathBuf, line: &[String]) -> Result<()> {
    setns(File::open(netns).with_context(|| format!("open {}", netns.display()))?, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("enter {}", netns.display()))?;
    // Returns only when it failed.
    Err(Command::new(&line[0]).args(&line[1..]).exec()).with_context(|| format!("run {}", line[0]))
}
