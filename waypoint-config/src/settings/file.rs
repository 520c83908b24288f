// SPDX-License-Identifier: Apache-2.0
//! Follows a mesh configuration file. At the start it must be right; later a bad one is told, and what the last good one said stands. Started by `app`.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

use super::read::{Reading, read};
use crate::{envoy::input::Settings, source::Fault};

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{}: cannot be read; --mesh-config must name a file", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It says something that cannot be.
    #[error("{}: {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong.
        reason: String,
    },
}

/// What holds now.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What the last good file said.
    pub settings: Arc<Settings>,
    /// What is wrong with the file as it is.
    pub fault: Option<Fault>,
}

/// A file that was right when it was opened.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// The outside of what was read last.
    known: Option<Outside>,
    every: Duration,
}

/// What tells one version of a file from the next: device, inode, size, times in ns.
type Outside = (u64, u64, u64, [i64; 4]);

impl File {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// If it is not there or not right.
    pub fn open(path: PathBuf) -> Result<(Self, Loaded), SettingsError> {
        let known = outside(&path).ok();
        let reading = load(&path)?;
        told(&path, &reading);
        let loaded = Loaded { settings: Arc::new(reading.settings), fault: None };
        Ok((Self { path, known, every: LOOK }, loaded))
    }

    /// Looks again and again, and says what is new, until nobody listens.
    pub async fn run(mut self, out: watch::Sender<Loaded>) {
        let mut before = self.known;
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = out.closed() => return,
            }
            // Two small calls to the kernel; a file that hangs them hangs the whole machine's configuration.
            let now = outside(&self.path).ok();
            // A file that is being written does not stand still.
            let stands = now == before;
            before = now;
            if now == self.known || !stands {
                continue;
            }
            self.known = now;
            let path = self.path.clone();
            let Ok(loaded) = tokio::task::spawn_blocking(move || load(&path)).await else { return };
            self.say(loaded, &out);
        }
    }

    fn say(&self, loaded: Result<Reading, SettingsError>, out: &watch::Sender<Loaded>) {
        match loaded {
            Ok(reading) => {
                told(&self.path, &reading);
                out.send_if_modified(|said| {
                    let is_new = *said.settings != reading.settings || said.fault.is_some();
                    if is_new {
                        *said = Loaded { settings: Arc::new(reading.settings), fault: None };
                        info!("{}: is taken up", self.path.display());
                    }
                    is_new
                });
            }
            Err(error) => {
                let reason = match error {
                    SettingsError::Io { source, .. } => source.to_string(),
                    SettingsError::Content { reason, .. } => reason,
                };
                let file = self.path.clone();
                let fault = Fault {
                    file,
                    line: 0,
                    object: None,
                    path: String::new(),
                    reason,
                    stands: true,
                    observed: false,
                    parents: Vec::new(),
                };
                out.send_if_modified(|said| said.fault.replace(fault.clone()).as_ref() != Some(&fault));
            }
        }
    }
}

fn told(path: &Path, reading: &Reading) {
    for note in &reading.notes {
        warn!("{}: {note}", path.display());
    }
}

fn load(path: &Path) -> Result<Reading, SettingsError> {
    let io = |source| SettingsError::Io { path: path.to_owned(), source };
    let content = |reason: String| SettingsError::Content { path: path.to_owned(), reason };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(content("is not a regular file".to_owned()));
    }
    if metadata.len() > MAX_BYTES {
        return Err(content(format!("has {} bytes, more than the {MAX_BYTES} it may have", metadata.len())));
    }
    read(&std::fs::read(path).map_err(io)?).map_err(content)
}

fn outside(path: &Path) -> io::Result<Outside> {
    let of = std::fs::metadata(path)?;
    Ok((of.dev(), of.ino(), of.size(), [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()]))
}

/// How often to look. A change counts from the second look on.
const LOOK: Duration = Duration::from_millis(250);
const MAX_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use mesh_common::lifecycle::Tasks;

    use super::*;

    async fn next(said: &mut watch::Receiver<Loaded>) -> Loaded {
        tokio::time::timeout(Duration::from_secs(20), said.changed()).await.expect("news in time").expect("a sender");
        said.borrow_and_update().clone()
    }

    #[tokio::test]
    async fn a_good_change_is_taken_up_and_after_a_bad_one_the_last_good_one_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh");
        let write = |text: &str| {
            let draft = folder.path().join("draft");
            std::fs::write(&draft, text).unwrap();
            std::fs::rename(draft, &path).unwrap();
        };
        write("connectTimeout: 1s");
        let (mut file, first) = File::open(path.clone()).unwrap();
        file.every = Duration::from_millis(10);
        assert_eq!(first.settings.connect_timeout, Duration::from_secs(1));
        let (out, mut said) = watch::channel(first);
        let tasks = Tasks::new();
        let _ = tasks.spawn("file", file.run(out));

        write("connectTimeout: 2s");
        let good = next(&mut said).await;
        assert_eq!((good.settings.connect_timeout, good.fault), (Duration::from_secs(2), None));

        write("connectTimeout: soon");
        let bad = next(&mut said).await;
        assert_eq!(bad.settings.connect_timeout, Duration::from_secs(2), "the last good one stands");
        let fault = bad.fault.expect("a fault").to_string();
        assert!(fault.contains("connectTimeout") && fault.contains("10s") && fault.contains("stands"), "{fault}");

        std::fs::remove_file(&path).unwrap();
        let gone = next(&mut said).await;
        assert!(gone.fault.is_some_and(|fault| fault.reason.contains("No such file")), "a file that is gone is told");
        assert_eq!(gone.settings.connect_timeout, Duration::from_secs(2));

        write("connectTimeout: 3s");
        let mended = next(&mut said).await;
        assert_eq!((mended.settings.connect_timeout, mended.fault), (Duration::from_secs(3), None));
        drop(said);
        tokio::time::timeout(Duration::from_secs(20), tasks.finished()).await.expect("it ends when nobody listens");
    }

    #[test]
    fn a_wrong_file_is_no_file_to_start_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mesh");
        let missing = File::open(path.clone()).unwrap_err().to_string();
        assert!(missing.contains("--mesh-config"), "{missing}");
        std::fs::write(&path, "accessLogEncoding: XML").unwrap();
        let wrong = File::open(path.clone()).unwrap_err().to_string();
        assert!(wrong.contains("accessLogEncoding") && wrong.contains("JSON"), "{wrong}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(File::open(path).is_err());
    }
}
