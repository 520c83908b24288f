// SPDX-License-Identifier: Apache-2.0
//! The attacker: everything a peer of the data path should not do, from the outside, with real sockets, rustls, and HTTP/2 frames put together by hand.
//!
//! `raw`, `shake`, `frames`, `ask` and `flood` do the attacks named on their command line one after the other, and say of each how it ended; as long as standard
//! input stays open they begin again and again, and speak up only if one ends otherwise than the first time. The others are in `crowd` and `pose`.

mod credentials;
mod crowd;
mod frames;
mod link;
mod pose;
mod raw;
mod requests;
mod tunnel;

use std::{
    collections::BTreeMap,
    io::{Read, stdin},
    net::SocketAddr,
};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use credentials::{Claim, Flaw};
use frames::Taken;
use tunnel::Tunnel;

/// Whom to attack, as whom, and how.
#[derive(Args)]
pub(crate) struct Attack {
    #[command(flatten)]
    claim: Claim,
    /// What tunnels lead to: the application of the victim.
    #[arg(long, default_value = "127.0.0.1:9000")]
    target: String,
    /// Another port of it.
    #[arg(long)]
    to_port: Option<u16>,
    /// The victim.
    to: SocketAddr,
    #[command(subcommand)]
    how: How,
}

#[derive(Subcommand)]
enum How {
    /// Bytes and manners without sense, without TLS.
    Raw { names: Vec<String> },
    /// Handshakes with certificates that are not good enough.
    Shake { names: Vec<String> },
    /// Frames that should not be.
    Frames { names: Vec<String> },
    /// What stands in the place of the preface.
    Preface { names: Vec<String> },
    /// Requests for what nobody may have.
    Ask { names: Vec<String> },
    /// Too much of something.
    Flood { names: Vec<String> },
    /// An honest connection with a handshake of its own: a line there and back.
    Visit,
    /// Connections at once that are all asked.
    Parallel { count: usize },
    /// Connections at once, as many as there can be.
    Greedy { count: usize },
    /// Handshakes that never go on.
    HalfOpen { count: usize },
    /// Connections that say nothing.
    Silent { count: usize },
    /// Streams that are filled and not read at either end.
    StalledStreams { count: usize },
    /// Connections that ask for a lot and read nothing.
    StalledReaders { count: usize },
    /// A server on the port of `to` that is not what it should be.
    Pose,
}

/// See the module.
pub(crate) fn attack(attack: &Attack) -> Result<()> {
    let Attack { claim, target, to, how, .. } = attack;
    let target = &match (attack.to_port, target.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        _ => target.clone(),
    };
    let good = || Tunnel::open(*to, claim.client(Flaw::Nothing)?);
    match how {
        How::Raw { names } => again_and_again(names, |name| raw::annoy(*to, claim, name).map(ended)),
        How::Shake { names } => again_and_again(names, |name| raw::shake(*to, claim, name).map(ended)),
        How::Frames { names } => again_and_again(names, |name| frames::fault(&mut good()?, name, target).map(ended)),
        How::Preface { names } => again_and_again(names, |name| {
            frames::preface(&mut Tunnel::raw(*to, claim.client(Flaw::Nothing)?)?, name).map(ended)
        }),
        How::Ask { names } => again_and_again(names, |name| requests::ask(&mut good()?, name, target).map(ended)),
        How::Flood { names } => again_and_again(names, |name| {
            let flooded = frames::flood(&mut good()?, name, target)?;
            Ok((flooded.fate, flooded.taken))
        }),
        How::Visit => {
            requests::echo(&mut good()?, target)?;
            println!("served");
            Ok(())
        }
        How::Parallel { count } => crowd::parallel(*to, *count),
        How::Greedy { count } => crowd::greedy(*to, *count),
        How::HalfOpen { count } => crowd::half_open(*to, claim, *count, false),
        How::Silent { count } => crowd::half_open(*to, claim, *count, true),
        How::StalledStreams { count } => crowd::stalled_streams(*to, claim, *count, target),
        How::StalledReaders { count } => crowd::stalled_readers(*to, *count),
        How::Pose => pose::serve(claim, to.port()),
    }
}

/// How an attack ended, and how many frames were looked at.
type Outcome = (String, Option<Taken>);

fn ended(fate: String) -> Outcome {
    (fate, None)
}

/// Does all of it, and goes on until standard input is closed. Lines: `name: fate` for the first round of each and for every one that ends otherwise, `under way`,
/// and at the end of each round of a flood `name took FRAMES within SECONDS`, and `rounds N`.
fn again_and_again(names: &[String], mut one: impl FnMut(&str) -> Result<Outcome>) -> Result<()> {
    if names.is_empty() {
        bail!("what exactly?");
    }
    let told_to_stop = std::thread::spawn(|| stdin().lock().read_to_end(&mut Vec::new()));
    let mut fates: BTreeMap<&str, String> = BTreeMap::new();
    let mut all_taken: Vec<(&str, Taken)> = Vec::new();
    let mut rounds = 0;
    loop {
        for name in names {
            let (fate, taken) = one(name).unwrap_or_else(|error| (format!("failed: {error:#}"), None));
            if fates.get(name.as_str()).is_none_or(|known| *known != fate) {
                println!("{name}: {fate}");
            }
            fates.insert(name, fate);
            all_taken.extend(taken.map(|taken| (name.as_str(), taken)));
        }
        rounds += 1;
        if rounds == 1 {
            println!("under way");
        }
        if told_to_stop.is_finished() {
            break;
        }
    }
    for (name, Taken { frames, seconds }) in all_taken {
        println!("{name} took {frames} within {seconds}");
    }
    println!("rounds {rounds}");
    Ok(())
}
