// SPDX-License-Identifier: Apache-2.0
//! How many data threads there are. The machine's cores are an argument.

use std::num::NonZeroUsize;

/// What was said about it; the first that was said wins, from top to bottom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Threads {
    /// `ZTUNNEL_WORKER_THREADS`, else ProxyConfig's `concurrency`.
    pub wanted: Option<Wanted>,
    /// `ZTUNNEL_RESOURCE_CPU_LIMIT`, rounded up.
    pub limit: Option<usize>,
    /// `ZTUNNEL_RESOURCE_CPU_REQUEST`, rounded up.
    pub request: Option<usize>,
    /// `ZTUNNEL_CPU_LIMIT`.
    pub cores: Option<usize>,
}

/// A wish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// So many; 0 is as many as there are cores.
    Number(usize),
    /// This part of the cores, in percent.
    Percent(f64),
}

impl Threads {
    /// So many, on a machine with so many cores.
    pub fn count(&self, machine: usize) -> NonZeroUsize {
        let cores = self.cores.unwrap_or(machine);
        let all = self.limit.unwrap_or(cores);
        let request = self.request.unwrap_or(0);
        let count = match (self.wanted, self.limit) {
            (Some(Wanted::Number(0)), _) => all,
            (Some(Wanted::Number(number)), _) => number,
            (Some(Wanted::Percent(percent)), _) => part(all, percent),
            (None, Some(limit)) => limit.max(request),
            // At least two, as with Istio, but half of a small machine is its applications': one thread moves what two do there, for
            // three quarters of the work, because it has more to do each time it wakes.
            (None, None) => part(cores, 25.0).max(2).min(cores / 2).max(request),
        };
        NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
    }
}

fn part(all: usize, percent: f64) -> usize {
    // Cores are few: nothing is lost in a float, and the result is at most `all`.
    (all as f64 * percent / 100.0).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_was_said_wins() {
        let count = |threads: Threads, machine| threads.count(machine).get();
        let none = Threads::default();
        assert_eq!((count(none.clone(), 1), count(none.clone(), 3)), (1, 1));
        assert_eq!(count(none.clone(), 4), 2);
        assert_eq!(count(none.clone(), 8), 2);
        assert_eq!(count(none.clone(), 17), 5);
        assert_eq!(count(Threads { request: Some(4), ..none.clone() }, 8), 4);
        assert_eq!(count(Threads { limit: Some(3), ..none.clone() }, 64), 3);
        assert_eq!(count(Threads { limit: Some(3), request: Some(4), ..none.clone() }, 64), 4);
        let wanted = |wanted| Threads { wanted: Some(wanted), limit: Some(10), ..none.clone() };
        assert_eq!(count(wanted(Wanted::Number(7)), 64), 7);
        assert_eq!(count(wanted(Wanted::Number(0)), 64), 10);
        assert_eq!(count(wanted(Wanted::Percent(25.0)), 64), 3);
        assert_eq!(count(wanted(Wanted::Percent(0.1)), 64), 1);
        assert_eq!(count(Threads { cores: Some(40), ..none }, 64), 10);
    }
}
