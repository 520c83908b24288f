// SPDX-License-Identifier: Apache-2.0
//! The routes every program has a use for.

use std::fmt::Write;
use std::sync::Arc;

use hyper::header::ACCEPT;
use hyper::{Method, StatusCode};

use super::exchange::{Request, Response};
use super::routes::Routes;
use crate::lifecycle::{Readiness, Shutdown, Tasks};
use crate::telemetry;

impl Routes {
    /// `/` lists all paths with what they are about (ztunnel.md M-02).
    pub fn index(mut self, title: &'static str) -> Self {
        self.title = Some(title);
        self
    }

    /// `/metrics` and `/stats/prometheus`: the OpenMetrics text that `render` gives (ztunnel.md §13.1).
    pub fn metrics(self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let render = Arc::new(render);
        let about = "metrics, as OpenMetrics text";
        ["/metrics", "/stats/prometheus"].into_iter().fold(self, |routes, path| {
            let render = Arc::clone(&render);
            routes.any(path, about, move |request| {
                let body = render();
                async move { Response { content_type: metrics_type(&request), ..Response::text(body) } }
            })
        })
    }

    /// `/healthz`: 200 while the process can answer at all.
    pub fn healthz(self) -> Self {
        self.get("/healthz", "whether the process answers", |_| async { Response::text("ok\n") })
    }

    /// `path`: 200 `ready`, or 500 and the names of the gates that are closed (ztunnel.md P-10).
    pub fn readiness(self, path: &'static str, readiness: Readiness) -> Self {
        self.get(path, "whether the process is ready, and if not, what it waits for", move |_| {
            let (ready, text) = readiness.report();
            let status = if ready { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            async move { Response { status, ..Response::text(text) } }
        })
    }

    /// `/logging`: shows the log filter and changes it (ztunnel.md M-04).
    pub fn logging(self, telemetry: telemetry::Handle) -> Self {
        self.any("/logging", "show or change the log filter (POST)", move |request| {
            let response = logging(&telemetry, &request);
            async move { response }
        })
    }

    /// `/quitquitquit`: asks the process to stop (ztunnel.md M-05).
    pub fn quit(self, shutdown: Shutdown) -> Self {
        self.post("/quitquitquit", "stop the process, orderly (POST)", move |_| {
            shutdown.request("/quitquitquit");
            async { Response::text("shutdown now\n") }
        })
    }

    /// `/debug/tasks`: the names of the running tasks, each with how many run under it.
    pub fn tasks(self, tasks: Tasks) -> Self {
        self.get("/debug/tasks", "the running tasks by name, and how many", move |_| {
            let mut text = String::new();
            for (name, count) in tasks.running() {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{count}\t{name}");
            }
            async move { Response::text(text) }
        })
    }

    /// `/debug/pprof/...`: says that there is no profiler inside and what to do instead. 501, so that no tool takes the text for a profile.
    pub fn pprof(self) -> Self {
        let pid = std::process::id();
        let profile = format!(
            "no CPU profiler is built in; on the node, where the process has another id if it runs in a container, use\n  \
             perf record -F 99 -g -p {pid} -- sleep 10"
        );
        let heap = "no heap profiler is built in; /metrics and /proc/<pid>/smaps_rollup tell how much memory is used"
            .to_owned();
        [("/debug/pprof/profile", profile), ("/debug/pprof/heap", heap)].into_iter().fold(
            self,
            |routes, (path, text)| {
                routes.get(path, "not built in: tells what to use instead", move |_| {
                    let response = Response::failed(StatusCode::NOT_IMPLEMENTED, &text);
                    async move { response }
                })
            },
        )
    }

    pub(super) fn index_page(&self) -> Response {
        let title = self.title.unwrap_or_default();
        let mut page =
            format!("<!DOCTYPE html>\n<html><head><title>{title}</title></head><body>\n<h1>{title}</h1>\n<ul>\n");
        for (path, about) in self.paths() {
            // Paths and texts are constants of the program. Writing to a string cannot fail.
            let _ = writeln!(page, "<li><a href=\"{path}\">{path}</a>: {about}</li>");
        }
        page.push_str("</ul>\n</body></html>\n");
        Response::html(page)
    }
}

fn metrics_type(request: &Request) -> &'static str {
    let accepted = request.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.into_iter().any(|value| value.contains("application/openmetrics-text")) {
        "application/openmetrics-text;charset=utf-8;version=1.0.0"
    } else {
        "text/plain; charset=utf-8"
    }
}

fn logging(telemetry: &telemetry::Handle, request: &Request) -> Response {
    if request.method != Method::POST {
        return Response { status: StatusCode::METHOD_NOT_ALLOWED, ..Response::text(LOGGING_USAGE) };
    }
    let (level, reset) = (request.query("level"), request.query("reset").is_some());
    let filter = match level {
        None if !reset => Ok(telemetry.filter()),
        _ => telemetry.change_filter(level.unwrap_or_default(), reset),
    };
    match filter {
        Ok(filter) => Response::text(format!("current log level is {filter}\n")),
        Err(error) => Response::failed(StatusCode::BAD_REQUEST, format_args!("{error}\n{LOGGING_USAGE}")),
    }
}

const LOGGING_USAGE: &str = "\
usage: POST /logging                                        show the log filter
       POST /logging?level=<level>                          change the level of everything
       POST /logging?level=<target>=<level>,<target>=...    change the level of parts, e.g. access=debug
       POST /logging?reset                                  go back to the filter of the start, may be combined with level
levels: off, error, warn, info, debug, trace
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Peer;
    use std::net::{Ipv4Addr, SocketAddr};

    fn request(method: Method, path: &str, query: &str) -> Request {
        Request {
            method,
            path: path.to_owned(),
            query: super::super::exchange::parse_query(query),
            headers: hyper::HeaderMap::new(),
            body: bytes::Bytes::new(),
            peer: Peer::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
        }
    }

    async fn answer(routes: &Routes, method: Method, path: &str, query: &str) -> (u16, String) {
        let response = match routes.refusal(&method, path) {
            Some(refusal) => refusal,
            None => routes.answer(request(method, path, query)).await,
        };
        (response.status.as_u16(), String::from_utf8(response.body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_answers_as_probes_expect() {
        let readiness = Readiness::new();
        let gate = readiness.gate("state manager");
        let routes = Routes::new().readiness("/healthz/ready", readiness);
        let path = "/healthz/ready";
        assert_eq!(
            answer(&routes, Method::GET, path, "").await,
            (500, "not ready, pending: state manager\n".to_owned())
        );
        gate.open();
        assert_eq!(answer(&routes, Method::GET, path, "").await, (200, "ready\n".to_owned()));
        assert_eq!(answer(&routes, Method::POST, path, "").await, (405, String::new()));
        assert_eq!(answer(&routes, Method::GET, "/", "").await.0, 404);
    }

    #[tokio::test]
    async fn logging_shows_changes_and_resets() {
        let options = telemetry::Options { quiet: "hickory_server::server=off", ..telemetry::Options::default() };
        let telemetry = telemetry::detached(&options).unwrap();
        let routes = Routes::new().logging(telemetry);
        let post = async |query: &str| answer(&routes, Method::POST, "/logging", query).await;
        let level = |text: &str| (200, format!("current log level is {text}\n"));
        let start = "hickory_server::server=off,info";
        assert_eq!(post("").await, level(start));
        assert_eq!(post("level=access=debug").await, level(&format!("{start},access=debug")));
        assert_eq!(post("level=warn&reset").await, level("hickory_server::server=off,warn"));
        assert_eq!(post("reset=true").await, level(start));
        let (status, text) = post("level=access:debug").await;
        assert_eq!(status, 400);
        assert!(text.contains("access:debug") && text.contains("usage:"), "{text}");
        let (status, text) = answer(&routes, Method::GET, "/logging", "").await;
        assert_eq!(status, 405);
        assert!(text.starts_with("usage:"));
    }

    #[tokio::test]
    async fn quit_asks_for_shutdown_and_only_by_post() {
        let shutdown = Shutdown::new();
        let routes = Routes::new().quit(shutdown.clone());
        assert_eq!(answer(&routes, Method::GET, "/quitquitquit", "").await.0, 405);
        assert_eq!(answer(&routes, Method::POST, "/quitquitquit", "").await, (200, "shutdown now\n".to_owned()));
        assert_eq!(shutdown.requested().await, "/quitquitquit");
    }

    #[tokio::test]
    async fn metrics_are_rendered_anew_for_every_scrape() {
        let routes = Routes::new().metrics(|| "a_total 1\n# EOF\n".to_owned());
        for path in ["/metrics", "/stats/prometheus"] {
            assert_eq!(answer(&routes, Method::GET, path, "").await, (200, "a_total 1\n# EOF\n".to_owned()));
        }
        let mut scrape = request(Method::GET, "/metrics", "");
        assert_eq!(routes.answer(scrape.clone()).await.content_type, "text/plain; charset=utf-8");
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        scrape.headers.insert(ACCEPT, accept.parse().unwrap());
        let content_type = routes.answer(scrape).await.content_type;
        assert_eq!(content_type, "application/openmetrics-text;charset=utf-8;version=1.0.0");
    }

    #[tokio::test]
    async fn the_index_lists_every_path() {
        let routes = Routes::new().index("x").healthz().pprof().tasks(Tasks::new());
        let (status, page) = answer(&routes, Method::GET, "/", "").await;
        assert_eq!(status, 200);
        for path in ["/healthz", "/debug/pprof/profile", "/debug/tasks"] {
            assert!(page.contains(&format!("href=\"{path}\"")), "{page}");
        }
        assert_eq!(answer(&routes, Method::GET, "/debug/pprof/profile", "").await.0, 501);
        assert_eq!(answer(&routes, Method::GET, "/debug/pprof/heap", "").await.0, 501);
        assert_eq!(answer(&routes, Method::GET, "/healthz", "").await, (200, "ok\n".to_owned()));
    }
}
