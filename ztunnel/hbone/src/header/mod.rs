// SPDX-License-Identifier: Apache-2.0
//! Header blocks (RFC 7541) of requests and answers: written as plain literals, read within our own limits.

mod decode;
mod encode;
mod fields;
mod huffman;

pub use decode::HeaderError;
pub(crate) use decode::{Decoder, Limits, Size};
pub(crate) use encode::{answer, no_table, request};
pub(crate) use fields::{AnswerFields, RequestFields, Requested};
