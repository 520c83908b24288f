// SPDX-License-Identifier: Apache-2.0
//! gRPC over plain HTTP/2, with tonic at both ends: a server that answers what it was asked, and its client. Written out rather than generated, for its one
//! message is a text and each method does the same.

mod client;
mod server;

use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

pub(crate) use self::{client::call, server::serve};

/// The services of the server.
const SERVICES: [&str; 2] = ["test.Echo", "test.Other"];
/// The method of each that answers with several messages.
const COUNT: &str = "Count";

/// The only message.
#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// What is asked of the server.
#[derive(Args)]
pub(crate) struct Call {
    /// `http://address:port`.
    to: String,
    /// `package.Service/Method`; `Count` answers with as many messages as the text says.
    method: String,
    /// What is said. The server answers with its name, the method, and this; `fail N` with the status N, `fail N KEY TIMES` so only that many times; `wait N` after N
    /// milliseconds.
    #[arg(default_value = "")]
    text: String,
    /// `name: value`, once for each header.
    #[arg(short = 'H')]
    headers: Vec<String>,
    /// Milliseconds the client is ready to wait, as it tells the server.
    #[arg(long)]
    deadline: Option<u64>,
}

fn header(text: &str) -> Result<(AsciiMetadataKey, AsciiMetadataValue)> {
    let (name, value) = text.split_once(':').with_context(|| format!("no colon in {text}"))?;
    Ok((AsciiMetadataKey::from_str(name.trim())?, AsciiMetadataValue::from_str(value.trim())?))
}

/// What the programs above and tests add; the rest is gRPC's own.
fn shown(headers: &MetadataMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .filter_map(|entry| match entry {
            tonic::metadata::KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("x-test") => {
                Some(format!("{key}: {}", value.to_str().unwrap_or("?")))
            }
            _ => None,
        })
        .collect();
    lines.sort();
    lines.join(", ")
}
