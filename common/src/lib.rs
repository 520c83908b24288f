// SPDX-License-Identifier: Apache-2.0
//! The process: what every main needs and nothing of the mesh.
