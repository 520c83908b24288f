// SPDX-License-Identifier: Apache-2.0
//! The certificate authority: its keys on disk, what it signs, and the call by which workloads ask.

mod authority;
mod files;
mod metrics;
mod service;

pub use authority::{Authority, IssueError, ServingCertificate};
pub use files::KeyError;
pub use metrics::CaMetrics;
pub use service::{CertificateService, ServiceOptions};
