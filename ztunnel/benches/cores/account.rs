// SPDX-License-Identifier: Apache-2.0
//! What a connection costs in accounting, from the moment it is known what it is until its line is written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_common::telemetry::Format;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::Level;
use ztunnel::decide::{Hbone, Query, Route, route};
use ztunnel::engine::account::{AccessLog, Accounts, Book, Ends, LogBuffer, Record, Reporter};

use crate::case::Case;
use crate::mesh::{mesh, pod};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("account: a connection opened and closed, no log", 25_500, 64, || {
            accounted(Format::Plain, Level::ERROR)
        }),
        Case::new("account: a connection opened and closed, a line of text", 125_000, 64, || {
            accounted(Format::Plain, Level::INFO)
        }),
        Case::new("account: a connection opened and closed, a line of JSON", 130_000, 64, || {
            accounted(Format::Json, Level::INFO)
        }),
    ]
}

/// 64 connections of one client to 20 services, with lines of that level and graver.
fn accounted(format: Format, least: Level) -> Box<dyn FnMut()> {
    let snapshot = mesh(20, 0);
    let client = pod("client");
    let mut rng = StdRng::seed_from_u64(1);
    let mut hop = |number: u8| {
        let target = ([10, 96, 0, number % 20], 80).into();
        let Route::Hbone(hop) = route(&snapshot, Query { pod: &client, target }, &mut rng) else {
            panic!("not a service of this mesh")
        };
        hop
    };
    let hops: Vec<Hbone> = (0..64).map(&mut hop).collect();
    let mut book = Book::new(Arc::new(Accounts::default()));
    let mut log = LogBuffer::new(AccessLog {
        format,
        is_enabled: Arc::new(move |level| level <= least),
        write: Arc::new(|lines, _| assert!(!lines.is_empty())),
    });
    let start = Instant::now();
    Box::new(move || {
        for hop in &hops {
            let ends = Ends {
                source: ([10, 0, 0, 1], 40000).into(),
                destination: hop.hop,
                authority: Some(Box::new(hop.authority.into())),
            };
            let what = (Reporter::Source, hop.traffic.clone());
            let mut record = Record::open(&mut book, &mut log, start, what, ends);
            record.count_received(1000);
            record.count_sent(2000);
            record.close(&mut book, Some(&mut log), start + Duration::from_millis(12), Ok(()));
        }
        log.flush();
    })
}
