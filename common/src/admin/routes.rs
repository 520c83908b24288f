// SPDX-License-Identifier: Apache-2.0
//! Which path is answered by whom.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use hyper::{Method, StatusCode};

use super::exchange::{Request, Response};

/// The paths of a server. Paths match exactly; what is not here is 404.
#[derive(Default)]
pub struct Routes {
    pub(super) title: Option<&'static str>,
    table: BTreeMap<&'static str, Route>,
}

struct Route {
    about: &'static str,
    methods: Methods,
    handler: Handler,
}

enum Methods {
    Any,
    Only(&'static [Method]),
}

type Handler = Box<dyn Fn(Request) -> Pin<Box<dyn Future<Output = Response> + Send>> + Send + Sync>;

impl Routes {
    /// No paths.
    pub fn new() -> Self {
        Self::default()
    }

    /// `path` is answered by `handler` for GET and HEAD; `about` is for people who look at the index. Other methods are 405 without a body.
    pub fn get<F, R>(self, path: &'static str, about: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.add(path, about, Methods::Only(&[Method::GET, Method::HEAD]), handler)
    }

    /// The same for POST.
    pub fn post<F, R>(self, path: &'static str, about: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.add(path, about, Methods::Only(&[Method::POST]), handler)
    }

    /// The same for every method.
    pub fn any<F, R>(self, path: &'static str, about: &'static str, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.add(path, about, Methods::Any, handler)
    }

    fn add<F, R>(mut self, path: &'static str, about: &'static str, methods: Methods, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        let handler: Handler = Box::new(move |request| Box::pin(handler(request)));
        self.table.insert(path, Route { about, methods, handler });
        self
    }

    /// The paths with what they are about, sorted.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.table.iter().map(|(path, route)| (*path, route.about))
    }

    /// Finds the route, without regard to the body, so that nobody's body is read for nothing.
    pub(super) fn refusal(&self, method: &Method, path: &str) -> Option<Response> {
        match self.table.get(path) {
            None if path == "/" && self.title.is_some() => None,
            None => Some(Response::failed(StatusCode::NOT_FOUND, "not found")),
            Some(Route { methods: Methods::Only(allowed), .. }) if !allowed.contains(method) => {
                Some(Response::empty(StatusCode::METHOD_NOT_ALLOWED))
            }
            Some(_) => None,
        }
    }

    /// Answers a request that was not refused.
    pub(super) async fn answer(&self, request: Request) -> Response {
        match self.table.get(request.path.as_str()) {
            Some(route) => (route.handler)(request).await,
            None => self.index_page(),
        }
    }
}
