// SPDX-License-Identifier: Apache-2.0
//! What the control plane writes back. `status` (pure) gives what is said of an object the form Kubernetes has for it; `files` keeps it below the
//! `status` folder of a directory of objects. Started by `app`.

pub mod files;
pub mod status;
