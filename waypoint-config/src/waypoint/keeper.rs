// SPDX-License-Identifier: Apache-2.0
//! Keeps the certificate: asks for one, checks it, writes it, and asks again in time. What is in place stays until something better has come. The shell
//! of `schedule` and `certificate`; started by `app`.

use std::time::{Duration, Instant, SystemTime};

use mesh_proto::spiffe::Identity;
use thiserror::Error;
use tracing::{info, warn};

use super::certificate::{CertificateError, Credential, Draft};
use super::control_plane::{self, Authority, CallError};
use super::schedule::Schedule;
use super::secrets::{Folder, WriteError};

/// What it keeps.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Whose certificate.
    pub(super) identity: Identity,
    /// For how long.
    pub(super) lifetime: Duration,
    /// From whom.
    pub(super) authority: Authority,
    /// The roots discovery is verified with, which Envoy gets from here as well.
    pub(super) discovery_roots: std::path::PathBuf,
    /// Where to.
    pub(super) folder: Folder,
}

/// Why there is nothing new.
#[derive(Debug, Error)]
enum KeepError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Keeps a certificate that is there.
pub(super) struct Keeper {
    options: Options,
    schedule: Schedule,
    present: Credential,
    discovery_roots: String,
}

impl Keeper {
    /// Tries until there is a certificate, and the roots of discovery.
    pub(super) async fn first(options: Options) -> Self {
        let mut schedule = Schedule::new(Instant::now());
        loop {
            tokio::time::sleep_until(schedule.due().into()).await;
            match Self::begin(&options).await {
                Ok((present, discovery_roots)) => {
                    schedule.handle_issued(Instant::now(), left(&present), &mut rand::rng());
                    info!(identity = %options.identity, "the certificate is there");
                    return Self { options, schedule, present, discovery_roots };
                }
                Err(error) => {
                    schedule.handle_failed(Instant::now(), &mut rand::rng());
                    let again = schedule.due().saturating_duration_since(Instant::now());
                    warn!(%error, again = ?again, "no certificate yet");
                }
            }
        }
    }

    /// Renews it, for ever.
    pub(super) async fn run(mut self) {
        loop {
            // Looks up now and then: the roots' file may change, and a machine that slept has lost time.
            let look = Instant::now() + LOOK_INTERVAL;
            tokio::time::sleep_until(self.schedule.due().min(look).into()).await;
            self.refresh_discovery_roots().await;
            let now = Instant::now();
            if self.schedule.due() <= now {
                match self.renew().await {
                    Ok(next) => {
                        self.schedule.handle_issued(Instant::now(), left(&next), &mut rand::rng());
                        self.present = next;
                        info!("the certificate is renewed");
                    }
                    Err(error) => {
                        self.schedule.handle_failed(Instant::now(), &mut rand::rng());
                        let left = left(&self.present);
                        warn!(%error, left = ?left, "the certificate is not renewed; the one in place stays");
                    }
                }
            }
        }
    }

    async fn begin(options: &Options) -> Result<(Credential, String), KeepError> {
        let roots = control_plane::roots(&options.discovery_roots).await?;
        options.folder.put_discovery_roots(&roots)?;
        let credential = options.ask().await?;
        options.folder.put(&credential)?;
        Ok((credential, roots))
    }

    async fn renew(&self) -> Result<Credential, KeepError> {
        let next = self.options.ask().await?;
        next.instead_of(&self.present)?;
        self.options.folder.put(&next)?;
        Ok(next)
    }

    async fn refresh_discovery_roots(&mut self) {
        let refreshed = match control_plane::roots(&self.options.discovery_roots).await {
            Ok(roots) if roots == self.discovery_roots => return,
            Ok(roots) => self.options.folder.put_discovery_roots(&roots).map(|()| roots).map_err(KeepError::from),
            Err(error) => Err(error.into()),
        };
        match refreshed {
            Ok(roots) => self.discovery_roots = roots,
            Err(error) => warn!(%error, "the roots of discovery stay as they were"),
        }
    }
}

impl Options {
    async fn ask(&self) -> Result<Credential, KeepError> {
        let draft = Draft::new(self.identity.clone())?;
        let answer = self.authority.sign(draft.csr(), self.lifetime).await?;
        Ok(draft.check(&answer, SystemTime::now())?)
    }
}

fn left(credential: &Credential) -> Duration {
    credential.not_after().duration_since(SystemTime::now()).unwrap_or_default()
}

const LOOK_INTERVAL: Duration = Duration::from_secs(60);
