// SPDX-License-Identifier: Apache-2.0
//! How far clients have taken what was published. The discovery server keeps it while a client's stream lasts; the line waits by it when one client must
//! not act before another one knows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::view::Name;

/// The progress of all clients. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    readers: Mutex<(u64, Readers)>,
    changed: Notify,
}

/// Who reads what is published: a waypoint, or a node proxy, and up to which publication it has taken everything.
type Readers = BTreeMap<u64, (Option<Name>, u64)>;

/// One client; ends when dropped.
#[derive(Debug)]
pub struct Reader {
    number: u64,
    progress: Progress,
}

/// The progress of all clients at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What every node proxy has taken; absent: there is none.
    pub node_proxies: Option<u64>,
    /// What every Envoy of a waypoint has taken; absent: it has none.
    pub waypoints: BTreeMap<Name, u64>,
}

impl Progress {
    /// A client that has taken nothing yet: a waypoint's Envoy, or a node proxy.
    #[must_use]
    pub fn open(&self, waypoint: Option<Name>) -> Reader {
        let mut readers = self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.0 += 1;
        let number = readers.0;
        readers.1.insert(number, (waypoint, 0));
        Reader { number, progress: self.clone() }
    }

    /// How far all are.
    pub fn heard(&self) -> Heard {
        let mut heard = Heard::default();
        let readers = self.shared.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for (waypoint, taken) in readers.1.values() {
            let least = match waypoint {
                Some(waypoint) => heard.waypoints.entry(waypoint.clone()).or_insert(*taken),
                None => heard.node_proxies.get_or_insert(*taken),
            };
            *least = (*least).min(*taken);
        }
        heard
    }

    /// Waits for a change after the last one waited for. For one reader.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }
}

impl Reader {
    /// Up to which publication the client has taken everything.
    pub fn set(&self, publication: u64) {
        let mut readers = self.progress.shared.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, taken)) = readers.1.get_mut(&self.number)
            && *taken != publication
        {
            *taken = publication;
            self.progress.shared.changed.notify_one();
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.progress.shared.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.1.remove(&self.number);
        self.progress.shared.changed.notify_one();
    }
}
