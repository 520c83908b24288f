// SPDX-License-Identifier: Apache-2.0
//! `baseline`: a node proxy of the ordinary design, beside which ours is measured: tokio on two workers, `h2` with upstream's windows and frames, `tokio-rustls`,
//! pooled tunnels, in-pod sockets with the same mark, the same redirects, the application sees the client's address. It serves one pod in both directions.
//!
//! It is meant to be a good one: no policy, no discovery, no metrics and no log cost it anything, every destination is taken for one that speaks HBONE, and idle
//! connections hold no buffer. What it shares with others of its kind is that credit of a stream and of its connection are returned together, when the
//! application took the bytes.
#![expect(clippy::disallowed_methods, reason = "what the ordinary design does is what is measured here")]

mod copy;
mod inbound;
mod outbound;
mod pod;
mod tls;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{pod::PodNetns, tls::Credential};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A proxy of the ordinary design for one pod.
#[derive(Parser)]
struct Arguments {
    /// The pod's network namespace.
    #[arg(long)]
    netns: PathBuf,
    /// Folder of `cert.pem`, `key.pem` and `root.pem`.
    #[arg(long)]
    credential: PathBuf,
    /// The SPIFFE id the other end must prove.
    #[arg(long)]
    peer: String,
}

/// Upstream's limits of a tunnel.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const FRAME: u32 = 1 << 20;
const STREAMS: usize = 100;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let pod = Arc::new(PodNetns::open(&arguments.netns)?);
    let credential = Credential::load(&arguments.credential, &arguments.peer)
        .with_context(|| format!("load {}", arguments.credential.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let outbound = pod.listen(15001)?;
        let inbound = pod.listen(15008)?;
        println!("listening");
        let inbound = tokio::spawn(inbound::serve(inbound, Arc::clone(&pod), credential.server()?));
        let outbound = tokio::spawn(outbound::serve(outbound, pod, credential.client()?));
        inbound.await??;
        outbound.await?
    })
}
