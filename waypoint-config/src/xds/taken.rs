// SPDX-License-Identifier: Apache-2.0
//! How far a client has taken what it was sent: what it is still expected to ask for, and up to which publication it has everything. Used by the delta
//! session, which tells it of every response and every answer. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything waits for the client: one that does not answer keeps nothing back for ever.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Responses are told apart by the number in their nonce, which counts up.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What the client needs beside what it was sent, by type and name, and the last response that made it need that.
    expected: BTreeMap<&'static str, BTreeMap<Arc<str>, u64>>,
    /// The publication whose last response is not sent yet.
    announced: u64,
    /// Publications and the number of their last response, oldest first.
    marks: VecDeque<(u64, u64)>,
    taken: u64,
    waits_since: Option<Instant>,
}

impl Taken {
    /// Response `number` makes the client need these.
    pub(super) fn expect(&mut self, names: Vec<(&'static str, Arc<str>)>, number: u64) {
        for (type_url, name) in names {
            self.expected.entry(type_url).or_default().insert(name, number);
        }
    }

    /// The client has taken a response with this resource in it.
    pub(super) fn handle_taken(&mut self, type_url: &str, name: &str, nonce: &str) {
        let Some(of_type) = self.expected.get_mut(type_url) else { return };
        let is_newer = |since: &u64| nonce.parse::<u64>().is_ok_and(|number| number > *since);
        if of_type.get(name).is_some_and(is_newer) {
            of_type.remove(name);
        }
    }

    /// The client has refused a response: it needs nothing for it.
    pub(super) fn handle_refusal(&mut self, nonce: &str) {
        let Ok(number) = nonce.parse::<u64>() else { return };
        self.expected.values_mut().for_each(|of_type| of_type.retain(|_, since| *since != number));
    }

    /// Some are no longer there to be asked for.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&str, &str) -> bool) {
        self.expected.iter_mut().for_each(|(type_url, of_type)| of_type.retain(|name, _| !is_gone(type_url, name)));
    }

    /// Whether something of this type is expected.
    pub(super) fn awaits(&self, type_url: &str) -> bool {
        self.expected.get(type_url).is_some_and(|of_type| !of_type.is_empty())
    }

    /// Whether nothing is expected.
    pub(super) fn awaits_nothing(&self) -> bool {
        self.expected.values().all(BTreeMap::is_empty)
    }

    /// Whether something waits for the client.
    pub(super) fn waits(&mut self, waits: bool, now: Instant) {
        self.waits_since = waits.then(|| self.waits_since.unwrap_or(now));
    }

    /// When waiting ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waits_since.map(|since| since + PATIENCE)
    }

    /// Whether it should have ended.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= now)
    }

    /// What is sent from now on is of this publication.
    pub(super) fn announce(&mut self, publication: u64) {
        self.announced = publication;
    }

    /// Everything new of what was announced has been sent, the last of it in response `number`.
    pub(super) fn mark(&mut self, number: u64) {
        match self.marks.back_mut() {
            Some((publication, last)) if *last == number => *publication = self.announced,
            Some((publication, last)) if *publication == self.announced => *last = number,
            _ if self.announced == self.taken => {}
            _ => self.marks.push_back((self.announced, number)),
        }
        // A client that answers nothing makes us remember no more than this.
        if self.marks.len() > MOST {
            self.marks.pop_front();
        }
    }

    /// The last publication of which everything has been taken, when `oldest` is the oldest response without an answer.
    pub(super) fn taken(&mut self, oldest: Option<u64>) -> u64 {
        let oldest = oldest
            .into_iter()
            .chain(self.expected.values().flat_map(BTreeMap::values).copied())
            .min()
            .unwrap_or(u64::MAX);
        while let Some((publication, number)) = self.marks.front().copied()
            && number < oldest
        {
            self.taken = publication;
            self.marks.pop_front();
        }
        self.taken
    }
}

const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINTS: &str = "endpoints";

    #[test]
    fn a_publication_is_taken_when_its_responses_are_and_what_they_need() {
        let mut taken = Taken::default();
        taken.announce(7);
        taken.expect(vec![(ENDPOINTS, "a".into())], 1);
        taken.mark(1);
        assert_eq!(taken.taken(Some(1)), 0);
        assert_eq!(taken.taken(None), 0, "its endpoints are missing");
        taken.handle_taken(ENDPOINTS, "a", "1");
        assert_eq!(taken.taken(None), 0, "these are older than the cluster");
        taken.handle_taken(ENDPOINTS, "b", "2");
        assert!(taken.awaits(ENDPOINTS));
        taken.handle_taken(ENDPOINTS, "a", "2");
        assert_eq!(taken.taken(Some(3)), 7);
        // Nothing was sent for this one.
        taken.announce(9);
        taken.mark(3);
        assert_eq!(taken.taken(Some(3)), 7);
        assert_eq!(taken.taken(None), 9);
    }

    #[test]
    fn what_is_refused_or_gone_is_waited_for_no_longer() {
        let mut taken = Taken::default();
        taken.announce(1);
        taken.expect(vec![(ENDPOINTS, "a".into())], 1);
        taken.expect(vec![(ENDPOINTS, "b".into())], 2);
        taken.mark(2);
        taken.handle_refusal("1");
        assert_eq!(taken.taken(None), 0);
        taken.forget(|_, name| name == "b");
        assert_eq!(taken.taken(None), 1);
    }

    #[test]
    fn waiting_ends() {
        let (mut taken, start) = (Taken::default(), Instant::now());
        taken.waits(true, start);
        taken.waits(true, start + PATIENCE / 2);
        assert!(!taken.is_late(start + PATIENCE / 2));
        assert!(taken.is_late(start + PATIENCE));
        taken.waits(false, start + PATIENCE);
        assert_eq!(taken.next_deadline(), None);
    }
}
