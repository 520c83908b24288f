// SPDX-License-Identifier: Apache-2.0
//! What the mesh's operator decided, from a file in the words of Istio's `MeshConfig`: `document` is the file's shape, `read` makes what waypoints are made
//! from of it and is pure, `file` follows the file while the program runs. `app` starts it and hands what it says to `line`.

mod document;
mod file;
mod read;

pub use file::{File, Loaded, SettingsError};
pub use read::{Reading, read, without};
