// SPDX-License-Identifier: Apache-2.0
//! The ends of the line: what it is given (objects, what the operator decided, the keys of token issuers), and whom it tells.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::{Published, Statuses};
use crate::{envoy::input::KeySets, jwks, settings::Loaded, source::Batch};

/// The ends the line reads from.
#[derive(Debug)]
pub struct Inputs {
    /// Objects. Their end is the end of the line.
    pub batches: mpsc::Receiver<Batch>,
    /// What the operator decided.
    pub settings: watch::Receiver<Loaded>,
    /// The keys of token issuers.
    pub keys: watch::Receiver<Arc<KeySets>>,
}

/// The ends it writes to.
#[derive(Debug)]
pub struct Outputs {
    /// Each moment of the mesh.
    pub publish: watch::Sender<Published>,
    /// Which keys of token issuers are needed.
    pub wanted: watch::Sender<Arc<jwks::Wanted>>,
    /// What the authors of objects are told.
    pub statuses: Statuses,
}

impl Inputs {
    /// What the operator decided, as of now.
    pub(super) fn settings(&mut self) -> Loaded {
        self.settings.borrow_and_update().clone()
    }

    /// The keys, as of now.
    pub(super) fn keys(&mut self) -> Arc<KeySets> {
        Arc::clone(&self.keys.borrow_and_update())
    }
}

/// Waits for news of the operator or of keys. Where nobody speaks any more there are none.
pub(super) async fn configured(settings: &mut watch::Receiver<Loaded>, keys: &mut watch::Receiver<Arc<KeySets>>) {
    tokio::select! {
        Ok(()) = settings.changed() => {}
        Ok(()) = keys.changed() => {}
        else => std::future::pending().await,
    }
}
