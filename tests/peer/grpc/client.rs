// SPDX-License-Identifier: Apache-2.0
//! The client.

use std::{str::FromStr, time::Duration};

use anyhow::{Context, Result};
use tonic::{
    Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{COUNT, Call, Text, header, shown};

/// Calls, and prints each answer with its headers, or the status that came instead.
pub(crate) fn call(call: &Call) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(make(call))
}

async fn make(call: &Call) -> Result<()> {
    let endpoint = Endpoint::from_shared(call.to.clone())?.connect_timeout(Duration::from_secs(10));
    let channel = endpoint.connect().await.with_context(|| format!("connect to {}", call.to))?;
    let mut request = Request::new(Text { text: call.text.clone() });
    for text in &call.headers {
        let (name, value) = header(text)?;
        request.metadata_mut().append(name, value);
    }
    if let Some(deadline) = call.deadline {
        request.set_timeout(Duration::from_millis(deadline));
    }
    let path = PathAndQuery::from_str(&format!("/{}", call.method))?;
    if let Err(status) = ask(channel, request, path).await {
        println!("status {}: {}", i32::from(status.code()), status.message());
    }
    Ok(())
}

async fn ask(channel: Channel, request: Request<Text>, path: PathAndQuery) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Text, Text>::new();
    if path.path().ends_with(&format!("/{COUNT}")) {
        let answers = grpc.server_streaming(request, path, codec).await?;
        let mut answers = answers.into_inner();
        while let Some(answer) = answers.message().await? {
            println!("{}", answer.text);
        }
        return Ok(());
    }
    let answer = grpc.unary(request, path, codec).await?;
    println!("{} [{}]", answer.get_ref().text, shown(answer.metadata()));
    Ok(())
}
