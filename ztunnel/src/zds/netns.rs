// SPDX-License-Identifier: Apache-2.0
//! The descriptor of a pod's network namespace, held for as long as the pod is known.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use super::session::Netns;

/// Holds a namespace open.
#[derive(Debug)]
pub struct Held {
    file: File,
    id: (u64, u64),
}

impl Held {
    /// Takes what came with an `Add`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let found = file.metadata()?;
        Ok(Self { id: (found.dev(), found.ino()), file })
    }

    /// Another descriptor of it, for whoever enters it.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.file.try_clone().map(OwnedFd::from)
    }
}

impl Netns for Arc<Held> {
    fn is_same(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
