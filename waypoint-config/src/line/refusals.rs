// SPDX-License-Identifier: Apache-2.0
//! What clients have refused of what they were sent. The discovery server keeps it while a client's stream lasts; status and the debug page read it, so that
//! the author of the object behind a resource can be told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::view::{Name, status::Condition};

/// A resource a client has refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Who.
    pub client: Arc<str>,
    /// The waypoint it is of.
    pub waypoint: Option<Name>,
    /// The type.
    pub type_url: String,
    /// The name.
    pub resource: Arc<str>,
    /// What the client said.
    pub reason: Arc<str>,
}

impl Refusal {
    /// For the author of the object behind it.
    pub fn condition(&self) -> Condition {
        let Self { client, resource, reason, .. } = self;
        let message = format!("the waypoint {client} keeps what it had, because it refuses {resource}: {reason}");
        Condition::new(TAKEN, false, "RefusedByEnvoy", message)
    }
}

/// Whether the proxies take what was made of an object. Ours.
const TAKEN: &str = "lateen.io/TakenByWaypoint";

/// All that is refused now. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    all: Mutex<(u64, BTreeMap<u64, Vec<Refusal>>)>,
    changed: Notify,
}

/// One client's share; ends when dropped.
#[derive(Debug)]
pub struct Complaints {
    number: u64,
    refusals: Refusals,
}

impl Refusals {
    /// For a client that has refused nothing yet.
    #[must_use]
    pub fn open(&self) -> Complaints {
        let mut all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.0 += 1;
        Complaints { number: all.0, refusals: self.clone() }
    }

    /// Everything, in the order in which clients came.
    pub fn all(&self) -> Vec<Refusal> {
        let all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.1.values().flatten().cloned().collect()
    }

    /// Waits for a change after the last one waited for. For one reader.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn set(&self, number: u64, refused: Vec<Refusal>) {
        let mut all = self.shared.all.lock().unwrap_or_else(PoisonError::into_inner);
        let old = match refused.is_empty() {
            true => all.1.remove(&number).unwrap_or_default(),
            false => all.1.insert(number, refused.clone()).unwrap_or_default(),
        };
        if old != refused {
            self.shared.changed.notify_one();
        }
    }
}

impl Complaints {
    /// What the client refuses now.
    pub fn set(&self, refused: Vec<Refusal>) {
        self.refusals.set(self.number, refused);
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        self.set(Vec::new());
    }
}
