// SPDX-License-Identifier: Apache-2.0
//! Finds fields of a policy message that this program does not know. The decoder skips them silently, but in a policy
//! an unknown field may be a criterion, and to skip a criterion is to decide without it.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::policy::PolicyError;

/// A kind of message: its name, and its fields with the kind of those that are messages themselves.
struct Shape {
    name: &'static str,
    fields: &'static [(u32, Option<&'static Self>)],
}

/// Fails at the first field of an `istio.security.Authorization` that this program does not know.
pub(super) fn check(bytes: &[u8]) -> Result<(), PolicyError> {
    walk(bytes, &AUTHORIZATION)
}

fn walk(mut bytes: &[u8], shape: &Shape) -> Result<(), PolicyError> {
    let broken = |error: prost::DecodeError| PolicyError::Bytes(error.to_string());
    while !bytes.is_empty() {
        let (number, wire) = decode_key(&mut bytes).map_err(broken)?;
        let &(_, inner) = shape
            .fields
            .iter()
            .find(|(known, _)| *known == number)
            .ok_or(PolicyError::UnknownField { message: shape.name, number })?;
        match inner {
            // The shapes are finite, so the depth is bounded by them and not by the message.
            Some(inner) if wire == WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).map_err(broken)?;
                let length = usize::try_from(length)
                    .ok()
                    .filter(|&length| length <= bytes.len())
                    .ok_or_else(|| PolicyError::Bytes("a field is longer than its message".to_owned()))?;
                walk(&bytes[..length], inner)?;
                bytes.advance(length);
            }
            _ => skip_field(wire, number, &mut bytes, DecodeContext::default()).map_err(broken)?,
        }
    }
    Ok(())
}

static AUTHORIZATION: Shape = Shape {
    name: "Authorization",
    fields: &[(1, None), (2, None), (3, None), (4, None), (5, Some(&RULE)), (6, None), (7, None)],
};
static RULE: Shape = Shape { name: "Rule", fields: &[(1, Some(&CLAUSE))] };
static CLAUSE: Shape = Shape { name: "Clause", fields: &[(2, Some(&MATCH))] };
static MATCH: Shape = Shape {
    name: "Match",
    fields: &[
        (1, Some(&STRING)),
        (2, Some(&STRING)),
        (3, Some(&STRING)),
        (4, Some(&STRING)),
        (5, Some(&RANGE)),
        (6, Some(&RANGE)),
        (7, Some(&RANGE)),
        (8, Some(&RANGE)),
        (9, None),
        (10, None),
        (11, Some(&ACCOUNT)),
        (12, Some(&ACCOUNT)),
        (13, None),
    ],
};
static STRING: Shape = Shape { name: "StringMatch", fields: &[(1, None), (2, None), (3, None), (4, Some(&EMPTY))] };
static RANGE: Shape = Shape { name: "Address", fields: &[(1, None), (2, None)] };
static ACCOUNT: Shape = Shape { name: "ServiceAccountMatch", fields: &[(1, None), (2, None)] };
static EMPTY: Shape = Shape { name: "Empty", fields: &[] };
