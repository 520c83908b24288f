// SPDX-License-Identifier: Apache-2.0
//! The server.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, BoxStream, Service, http, tokio_stream},
    server::{Grpc, NamedService},
    transport::Server,
};
use tonic_prost::ProstCodec;

use super::{COUNT, SERVICES, Text, shown};

/// Serves for ever on all addresses.
pub(crate) fn serve(port: u16, name: &str) -> Result<()> {
    let seen = Arc::new(Seen { name: name.to_owned(), failures: Mutex::default() });
    let server = Server::builder()
        .add_service(Echo::<0>(Arc::clone(&seen)))
        .add_service(Echo::<1>(seen))
        .serve(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(server)?)
}

struct Seen {
    name: String,
    /// How often a call with this key has failed.
    failures: Mutex<BTreeMap<String, u32>>,
}

/// The service with that number.
#[derive(Clone)]
struct Echo<const NUMBER: usize>(Arc<Seen>);

impl<const NUMBER: usize> NamedService for Echo<NUMBER> {
    const NAME: &'static str = SERVICES[NUMBER];
}

impl<const NUMBER: usize> Service<http::Request<Body>> for Echo<NUMBER> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let seen = Arc::clone(&self.0);
        let method = request.uri().path().trim_start_matches('/').to_owned();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<Text, Text>::new());
            Ok(if method.ends_with(&format!("/{COUNT}")) {
                let count = |request: Request<Text>| std::future::ready(seen.count(&request));
                grpc.server_streaming(tower::service_fn(count), request).await
            } else {
                let answer = |request: Request<Text>| {
                    let (seen, method) = (Arc::clone(&seen), method.clone());
                    async move { seen.answer(&method, request).await }
                };
                grpc.unary(tower::service_fn(answer), request).await
            })
        })
    }
}

impl Seen {
    async fn answer(&self, method: &str, request: Request<Text>) -> Result<Response<Text>, Status> {
        let headers = shown(request.metadata());
        let text = request.into_inner().text;
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["fail", code] => return Err(self.failure(code)),
            ["fail", code, key, times] if self.fails_still(key, times) => return Err(self.failure(code)),
            ["wait", time] => {
                let time = Duration::from_millis(time.parse().unwrap_or_default());
                let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
            }
            _ => {}
        }
        let text = format!("{} {method} {text} [{headers}]", self.name);
        Ok(Response::new(Text { text }))
    }

    fn count(&self, request: &Request<Text>) -> Result<Response<BoxStream<Text>>, Status> {
        let number: usize = request.get_ref().text.parse().map_err(|_| Status::invalid_argument("no number"))?;
        let name = self.name.clone();
        let answers = (1..=number).map(move |number| Ok(Text { text: format!("{name} {number}") }));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    fn failure(&self, code: &str) -> Status {
        Status::new(code.parse::<i32>().unwrap_or(2).into(), format!("{} was asked to fail", self.name))
    }

    fn fails_still(&self, key: &str, times: &str) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let so_far = failures.entry(key.to_owned()).or_default();
        *so_far += 1;
        *so_far <= times.parse().unwrap_or_default()
    }
}
