// SPDX-License-Identifier: Apache-2.0
//! Whatever is waited for here can be waited for in a task of a runtime with several threads.

use std::time::Duration;

use super::*;

fn can_move(future: impl Future + Send) {
    drop(future);
}

#[test]
fn every_wait_can_move_between_threads() {
    let (tasks, readiness, shutdown, (drainer, draining)) = (Tasks::new(), Readiness::new(), Shutdown::new(), drain());
    can_move(tasks.finished());
    can_move(tasks.panicked());
    can_move(readiness.ready());
    can_move(shutdown.requested());
    can_move(draining.started());
    can_move(draining.forced());
    can_move(drainer.drain(Duration::ZERO));
}
