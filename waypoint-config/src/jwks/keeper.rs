// SPDX-License-Identifier: Apache-2.0
//! The loop that keeps keys fresh. Started by `app`; it obeys `schedule` and holds nothing of its own.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::{sync::watch, time::sleep_until};
use tracing::warn;

use super::{
    fetch::Fetcher,
    schedule::{Order, Schedule},
};
use crate::{api::KeySource, envoy::input::KeySets};

/// Which keys are wanted, and how long a fetch of each may take.
pub type Wanted = BTreeMap<KeySource, Duration>;

/// Runs until nobody says any more what is wanted.
pub async fn run(fetcher: Fetcher, mut wanted: watch::Receiver<Arc<Wanted>>, keys: watch::Sender<Arc<KeySets>>) {
    let mut schedule = Schedule::default();
    let mut running = FuturesUnordered::new();
    let fetch = |Order { source, patience }| {
        let fetcher = fetcher.clone();
        async move {
            let fetched = fetcher.fetch(&source, patience).await.map_err(|error| error.to_string());
            (source, fetched)
        }
    };
    let first = Arc::clone(&wanted.borrow_and_update());
    schedule.handle_wanted(Instant::now(), &first);
    loop {
        running.extend(schedule.begin(Instant::now(), AT_ONCE - running.len()).into_iter().map(fetch));
        publish(&schedule, &keys);
        // With no slot free the next end of a fetch is the next event.
        let deadline = schedule.next_deadline().filter(|_| running.len() < AT_ONCE);
        let alarm = async {
            match deadline {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = Arc::clone(&wanted.borrow_and_update());
                schedule.handle_wanted(Instant::now(), &now);
            }
            Some((source, fetched)) = running.next() => {
                let news = schedule.handle_fetched(Instant::now(), &mut rand::rng(), &source, fetched);
                if let Some(news) = news {
                    warn!("keys of token issuers: {news}");
                }
            }
            () = alarm => {}
        }
    }
}

fn publish(schedule: &Schedule, keys: &watch::Sender<Arc<KeySets>>) {
    let now = schedule.keys();
    keys.send_if_modified(|said| {
        let differs = **said != now;
        if differs {
            *said = Arc::new(now);
        }
        differs
    });
}

/// How many fetches run at once.
const AT_ONCE: usize = 64;
