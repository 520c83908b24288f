// SPDX-License-Identifier: Apache-2.0
//! The small HTTP/1.1 servers every program has: administration, metrics, readiness.
//!
//! A main builds [`Routes`] (ready-made ones and its own), binds a [`Server`] early, so that a taken port fails the start, and serves it under its
//! [`Tasks`](crate::lifecycle::Tasks) and [`Drain`](crate::lifecycle::Drain). There is no authentication: who may connect is decided by where it listens.
//!
//! ```no_run
//! use mesh_common::admin::{Listen, Response, Routes, Server};
//! use mesh_common::lifecycle::{Readiness, Shutdown, Tasks, drain};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let (tasks, readiness, shutdown) = (Tasks::new(), Readiness::new(), Shutdown::new());
//! # let (_drainer, draining) = drain();
//! let routes = Routes::new()
//!     .index("an example")
//!     .quit(shutdown)
//!     .get("/config_dump", "the whole state", |_request| async { Response::json("{}") });
//! Server::bind("admin", &[Listen::Loopback(15000)], routes).await?.serve(&tasks, &draining);
//! let ready = Routes::new().readiness("/healthz/ready", readiness);
//! Server::bind("readiness", &[Listen::Everywhere(15021)], ready).await?.serve(&tasks, &draining);
//! # Ok(())
//! # }
//! ```
//!
//! **Hostile clients** (ztunnel.md M-01): a head that does not arrive within two seconds or does not fit into 8 KiB ends the connection, so does a body that is
//! slow or longer than 64 KiB and an answer that nobody reads for ten seconds. Each server has at most 128 connections; one more takes the place of the client that made no
//! progress for longest, so that nobody waits behind clients that only sit there. Over TCP four requests are answered at once, and answers that are not read yet have at
//! most 64 MiB together: pages are made on the thread that does the rest of the control side's work.

mod exchange;
mod patience;
mod places;
mod routes;
mod server;
mod standard;

pub use exchange::{Peer, Request, Response};
pub use hyper::{Method, StatusCode};
pub use routes::Routes;
pub use server::{AdminError, Listen, Server};
