// SPDX-License-Identifier: Apache-2.0
//! The second act: a waypoint appears, does what needs HTTP, and goes, and no client notices more of it than it should.

mod coming;
mod policies;
mod resilience;
mod routes;

use anyhow::{Result, ensure};
use harness::{objects, process::Said, wait};

use crate::{report::Step, story::Story};

/// What the shop's clients ask for.
const URL: &str = "http://web.shop/";

/// The steps in order.
pub(crate) const STEPS: &[Step<Story>] = &[
    Step { title: "A shop in the mesh, without a waypoint", act: coming::open, logs: &["control", "n1-ztunnel"] },
    Step {
        title: "A waypoint appears: a launcher and an Envoy",
        act: coming::appear,
        logs: &["shop-waypoint-0", "control"],
    },
    Step {
        title: "Traffic moves through it, and no request fails",
        act: coming::bind,
        logs: &["shop-waypoint-0", "control", "n1-ztunnel"],
    },
    Step { title: "A canary gets a tenth of 1,000 requests", act: routes::canary, logs: LOGS },
    Step { title: "A header chooses the version", act: routes::header, logs: LOGS },
    Step { title: "Retries hide a failing backend", act: resilience::retry, logs: LOGS },
    Step { title: "A timeout bounds a slow answer", act: resilience::timeout, logs: LOGS },
    Step { title: "A mirror sends copies, and clients see none of it", act: routes::mirror, logs: LOGS },
    Step { title: "A policy denies a method on a path, and says why", act: policies::deny, logs: LOGS },
    Step { title: "Without a valid token nobody gets in, and hears why", act: policies::token, logs: LOGS },
    Step {
        title: "The waypoint goes, and no request fails",
        act: coming::leave,
        logs: &["shop-waypoint-0", "control", "n1-ztunnel"],
    },
];

const LOGS: &[&str] = &["shop-waypoint-0", "control"];

impl Story {
    /// A request of the shop's client, with its status behind the answer.
    fn ask(&self, arguments: &[&str]) -> Result<Said> {
        let line = [&["curl", "-sS", "--max-time", "10", "-w", " %{http_code}\n"], arguments].concat();
        self.world.pod("shop/client")?.run_for(&line, wait::LONG_PATIENCE)
    }

    /// Asks until the answer is this one.
    fn ask_until(&self, arguments: &[&str], wanted: &str) -> Result<()> {
        wait::until(&format!("the answer {wanted:?}"), wait::PATIENCE, || {
            let said = self.ask(arguments)?;
            ensure!(said.stdout.trim() == wanted, "{}", said.story());
            Ok(())
        })
    }

    /// With objects in force for the length of `show`, which waits for them.
    fn with_objects(&mut self, yaml: &str, show: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let objects = objects::parse(yaml)?;
        for object in &objects {
            self.world.put(object.clone())?;
        }
        let shown = show(self);
        for object in &objects {
            let (kind, namespace, name) = objects::key(object)?;
            self.world.objects.remove(&kind, &namespace, &name)?;
        }
        shown
    }
}
