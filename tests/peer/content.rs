// SPDX-License-Identifier: Apache-2.0
//! Bytes for large transfers: fast to make, and no two blocks alike, so that a lost, doubled or swapped block changes the digest.

use std::io::{Read, Result, Write};

use sha2::{Digest, Sha256};

const BLOCK: usize = 256 << 10;

/// Writes `length` bytes and returns their digest.
pub(crate) fn send(mut to: impl Write, length: u64) -> Result<String> {
    let mut block: Vec<u8> = (0..BLOCK).map(|at| (at * 31 + at / 251).to_le_bytes()[0]).collect();
    let mut digest = Sha256::new();
    let mut left = length;
    let mut number = 0_u64;
    while left > 0 {
        block[..8].copy_from_slice(&number.to_le_bytes());
        let part = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        to.write_all(&block[..part])?;
        digest.update(&block[..part]);
        left -= part as u64;
        number += 1;
    }
    Ok(text(digest))
}

/// Reads to the end and returns how many bytes came and their digest.
pub(crate) fn receive(mut from: impl Read) -> Result<(u64, String)> {
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut length = 0;
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            return Ok((length, text(digest)));
        }
        digest.update(&block[..read]);
        length += read as u64;
    }
}

fn text(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
