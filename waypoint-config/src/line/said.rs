// SPDX-License-Identifier: Apache-2.0
//! What waypoints do not do of a policy as written, for its author and for the log. Called by `line`.

use std::collections::BTreeSet;

use tracing::warn;

use crate::{
    api::{Key, Kind},
    envoy::{About, Said},
    fleet::Fleet,
    view::status::Condition,
};

/// For the author of a policy; nothing while every waypoint that is asked for enforces it as written.
pub(super) fn conditions(fleet: &Fleet, key: &Key) -> Option<Condition> {
    let notices: Vec<_> = fleet.notices(key).collect();
    let words: Vec<String> = notices.iter().map(ToString::to_string).collect();
    Some(Condition::new(AS_WRITTEN, false, notices.first()?.word(), words.join("; ")))
}

/// Each once, when it is new.
pub(super) fn report(before: &BTreeSet<Said>, fleet: &Fleet) {
    for Said { about, notice } in fleet.said().into_iter().filter(|said| !before.contains(said)) {
        warn!("{}: {notice}", key_of(about));
    }
}

fn key_of(about: &About) -> Key {
    let (kind, name) = match about {
        About::Authorization(name) => (Kind::AuthorizationPolicy, name),
        About::Authentication(name) => (Kind::RequestAuthentication, name),
    };
    Key::new(kind, &name.namespace, &name.name)
}

/// Whether waypoints do what a policy says. Ours.
const AS_WRITTEN: &str = "lateen.io/EnforcedAsWritten";
