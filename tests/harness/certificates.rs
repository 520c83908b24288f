// SPDX-License-Identifier: Apache-2.0
//! A certificate authority of the world's own, for proxies that are not the mesh's: SPIFFE certificates of the kind the mesh's authority issues, as files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// The authority.
#[derive(Debug)]
pub struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one.
    pub fn create() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = parameters.self_signed(&key)?.pem();
        Ok(Self { root, issuer: Issuer::new(parameters, key) })
    }

    /// Writes `cert.pem`, `key.pem` and `root.pem` for a SPIFFE id into a new folder, and returns that.
    pub fn issue(&self, parent: &Path, name: &str, identity: &str) -> Result<PathBuf> {
        let folder = parent.join(name);
        fs::create_dir_all(&folder)?;
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::URI(identity.try_into()?)];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        fs::write(folder.join("cert.pem"), parameters.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(folder.join("key.pem"), key.serialize_pem())?;
        fs::write(folder.join("root.pem"), &self.root)?;
        Ok(folder)
    }
}
