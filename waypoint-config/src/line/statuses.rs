// SPDX-License-Identifier: Apache-2.0
//! What is said of objects, on its way to whoever writes it down. The line never waits for a writer: what is said of an object twice meanwhile is told
//! once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::{api::Key, view::status::Status};

/// The way from the line to the writer. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Told>,
    changed: Notify,
}

/// What is said now of objects of which something else was said before, or nothing.
#[derive(Debug, Default)]
pub struct Told {
    /// By object; an empty status takes back what was said.
    pub of: BTreeMap<Key, Status>,
    /// Whether, with everything told so far, something was told of every object there is something to say of.
    pub complete: bool,
}

impl Statuses {
    /// Says it.
    pub fn say(&self, news: Vec<(Key, Status)>, complete: bool) {
        {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.of.extend(news);
            waiting.complete |= complete;
        }
        self.shared.changed.notify_one();
    }

    /// Waits for news. For one reader.
    pub async fn next(&self) -> Told {
        self.shared.changed.notified().await;
        std::mem::take(&mut *self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
