// SPDX-License-Identifier: Apache-2.0
//! Frames in every cut, right and wrong.

use proptest::prelude::*;

use super::*;
use crate::frame::MIN_FRAME_SIZE;

/// Pieces with everything owned and what the cuts may split joined again.
#[derive(Debug, PartialEq, Clone)]
enum Told {
    Piece(String),
    Data(Vec<u8>),
    Padding(u32),
    Error(ConnectionError),
}

fn read(reader: &mut Reader, chunks: &[&[u8]]) -> Vec<Told> {
    let mut told = Vec::new();
    for chunk in chunks {
        let mut input = *chunk;
        loop {
            match reader.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Piece::Data(bytes))) => match told.last_mut() {
                    Some(Told::Data(before)) => before.extend_from_slice(bytes),
                    _ => told.push(Told::Data(bytes.to_vec())),
                },
                Ok(Some(Piece::Padding(length))) => match told.last_mut() {
                    Some(Told::Padding(before)) => *before += length,
                    _ => told.push(Told::Padding(length)),
                },
                Ok(Some(piece)) => told.push(Told::Piece(format!("{piece:?}"))),
                Err(error) => {
                    told.push(Told::Error(error));
                    return told;
                }
            }
        }
        assert!(input.is_empty());
    }
    told
}

fn reader() -> Reader {
    Reader::new(false, MIN_FRAME_SIZE, 4000)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn refused(bytes: &[u8]) -> ConnectionError {
    match read(&mut reader(), &[bytes]).pop() {
        Some(Told::Error(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_preface_comes_first_and_byte_by_byte() {
    for wrong in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nXX", b"\x16\x03\x01"] {
        assert_eq!(
            read(&mut Reader::new(true, 16_384, 100), &[wrong]),
            [Told::Error(ConnectionError::NotHttp2)],
            "{wrong:?}"
        );
    }
    let mut server = Reader::new(true, 16_384, 100);
    let bytes: Vec<_> = PREFACE.iter().copied().chain(frame(kind::SETTINGS, flag::ACK, 0, &[])).collect();
    assert_eq!(read(&mut server, &bytes.chunks(1).collect::<Vec<_>>()), [Told::Piece("SettingsAck".into())]);
}

#[test]
fn every_frame_with_a_size_of_its_own_has_that_size() {
    let wrong = [
        (kind::RST_STREAM, 1, 5),
        (kind::WINDOW_UPDATE, 1, 3),
        (kind::PING, 0, 9),
        (kind::PRIORITY, 1, 4),
        (kind::SETTINGS, 0, 7),
        (kind::GOAWAY, 0, 7),
        (kind::DATA, 1, 16_385),
        (0xee, 1, 16_385),
    ];
    for (kind, stream, length) in wrong {
        let error = refused(&frame(kind, 0, stream, &vec![0; length]));
        assert_eq!(error, ConnectionError::FrameSize { kind, length: length as u32 });
        assert_eq!(error.code(), ErrorCode::FRAME_SIZE_ERROR);
    }
    assert_eq!(refused(&frame(kind::SETTINGS, flag::ACK, 0, &[0; 6])).code(), ErrorCode::FRAME_SIZE_ERROR);
    assert_eq!(refused(&frame(kind::DATA, flag::PADDED, 1, &[])).code(), ErrorCode::FRAME_SIZE_ERROR);
    assert_eq!(
        refused(&frame(kind::HEADERS, flag::PADDED | flag::PRIORITY, 1, &[0; 5])).code(),
        ErrorCode::FRAME_SIZE_ERROR
    );
}

#[test]
fn frames_are_where_they_belong() {
    for (kind, stream, length) in [
        (kind::DATA, 0, 0),
        (kind::HEADERS, 0, 0),
        (kind::PRIORITY, 0, 5),
        (kind::RST_STREAM, 0, 4),
        (kind::CONTINUATION, 0, 0),
        (kind::SETTINGS, 1, 0),
        (kind::PING, 1, 8),
        (kind::GOAWAY, 1, 8),
        (kind::PUSH_PROMISE, 1, 8),
        (kind::CONTINUATION, 1, 0),
    ] {
        assert_eq!(refused(&frame(kind, 0, stream, &vec![0; length])).code(), ErrorCode::PROTOCOL_ERROR, "{kind}");
    }
}

#[test]
fn padding_is_within_its_frame() {
    assert_eq!(refused(&frame(kind::DATA, flag::PADDED, 1, &[4, 0, 0, 0])).code(), ErrorCode::PROTOCOL_ERROR);
    assert_eq!(refused(&frame(kind::HEADERS, flag::PADDED, 1, &[4, 0, 0, 0])).code(), ErrorCode::PROTOCOL_ERROR);
    let all = frame(kind::DATA, flag::PADDED, 1, &[3, 0, 0, 0]);
    let told = read(&mut reader(), &[&all]);
    assert_eq!(told[1..], [Told::Padding(4), Told::Piece("DataEnd { end: false }".into())]);
}

#[test]
fn a_header_block_is_put_together_from_its_pieces() {
    let mut bytes = frame(kind::HEADERS, flag::PADDED | flag::PRIORITY | flag::END_STREAM, 5, b"\x02\0\0\0\0\0ab\0\0");
    bytes.extend(frame(kind::CONTINUATION, 0, 5, b""));
    bytes.extend(frame(kind::CONTINUATION, flag::END_HEADERS, 5, b"cd"));
    bytes.extend(frame(kind::PING, 0, 0, b"12345678"));
    let told = read(&mut reader(), &[&bytes]);
    assert_eq!(told[0], Told::Piece("HeadersStart".into()));
    assert_eq!(told[1], Told::Piece("Headers { stream: 5, end: true, block: [97, 98, 99, 100] }".into()));
    assert_eq!(told.len(), 3);
}

#[test]
fn nothing_comes_between_headers_and_continuation() {
    let open = frame(kind::HEADERS, 0, 5, b"ab");
    for other in [
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::CONTINUATION, flag::END_HEADERS, 7, b""),
        frame(kind::DATA, 0, 5, b""),
        frame(0xee, 0, 5, b""),
    ] {
        assert_eq!(refused(&[open.clone(), other].concat()).code(), ErrorCode::PROTOCOL_ERROR);
    }
}

#[test]
fn a_header_block_has_a_limit_in_bytes_and_in_pieces() {
    assert_eq!(refused(&frame(kind::HEADERS, 0, 1, &[0; 4001])), ConnectionError::HeaderBlock { limit: 4000 });
    let mut bytes = frame(kind::HEADERS, 0, 1, &[0; 4000]);
    assert!(!matches!(read(&mut reader(), &[&bytes]).last(), Some(Told::Error(_))));
    bytes.extend(frame(kind::CONTINUATION, 0, 1, &[0]));
    assert_eq!(refused(&bytes), ConnectionError::HeaderBlock { limit: 4000 });
    let mut bytes = frame(kind::HEADERS, 0, 1, &[]);
    for _ in 0..MAX_BLOCK_FRAMES {
        bytes.extend(frame(kind::CONTINUATION, 0, 1, &[]));
    }
    assert_eq!(refused(&bytes).code(), ErrorCode::ENHANCE_YOUR_CALM);
}

/// Whether the end is known with the first bytes of the first frame, of which so many bytes of all have come.
fn foresees(frames: &[Vec<u8>], arrived: usize) -> bool {
    let bytes = frames.concat();
    let (mut reader, mut input) = (reader(), &bytes[..arrived.min(bytes.len())]);
    loop {
        match reader.next(&mut input).unwrap() {
            Some(Piece::Data(_)) => return reader.end_follows(1, input),
            Some(_) => {}
            None => panic!("no data"),
        }
    }
}

#[test]
fn an_end_is_foreseen_only_when_all_of_it_has_come() {
    let data = |flags, payload: &[u8]| frame(kind::DATA, flags, 1, payload);
    let ended = [data(flag::END_STREAM, b"abc")];
    assert!(foresees(&ended, 12) && !foresees(&ended, 11));
    // Two bytes of padding.
    let padded = [data(flag::END_STREAM | flag::PADDED, b"\x02abc\0\0")];
    assert!(foresees(&padded, 15) && !foresees(&padded, 14) && !foresees(&padded, 13));
    let apart = [data(0, b"abc"), data(flag::END_STREAM, b"")];
    assert!(foresees(&apart, 21) && !foresees(&apart, 20) && !foresees(&apart, 12));
    for other in [
        data(0, b""),
        data(flag::END_STREAM, b"d"),
        frame(kind::DATA, flag::END_STREAM, 3, b""),
        frame(kind::HEADERS, flag::END_STREAM, 1, b""),
    ] {
        assert!(!foresees(&[data(0, b"abc"), other.clone()], 100), "{other:?}");
    }
    assert!(
        !foresees(&[data(flag::PADDED, b"\x01abc\0"), data(flag::END_STREAM, b"")], 100),
        "not looked for behind padding"
    );
}

#[test]
fn the_first_bytes_of_a_stream_are_foreseen_behind_its_request() {
    let request = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x88]);
    let foreseen = |next: &[u8]| {
        let bytes = [request.clone(), next.to_vec()].concat();
        let (mut reader, mut input) = (reader(), &bytes[..]);
        while !matches!(reader.next(&mut input).unwrap(), Some(Piece::Headers { .. })) {}
        reader.data_follows(1, input)
    };
    let data = frame(kind::DATA, 0, 1, b"abc");
    assert!(foreseen(&data) && foreseen(&data[..9]));
    assert!(!foreseen(&data[..8]), "its header has not come");
    for other in [
        frame(kind::DATA, flag::END_STREAM, 1, b""),
        frame(kind::DATA, 0, 3, b"abc"),
        frame(kind::HEADERS, 0, 1, b"abc"),
        Vec::new(),
    ] {
        assert!(!foreseen(&other), "{other:?}");
    }
}

#[test]
fn an_absurd_settings_frame_is_refused_by_its_header() {
    let header = &frame(kind::SETTINGS, 0, 0, &[0; 65 * 6])[..9];
    assert_eq!(refused(header), ConnectionError::Flood(crate::flood::Kind::Settings));
}

/// Any frame that might be sent, legal or not.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![Just(vec![0; 4]), Just(vec![1; 8]), proptest::collection::vec(any::<u8>(), 0..64)];
    let flags = prop_oneof![Just(0u8), Just(flag::END_HEADERS), Just(flag::PADDED), any::<u8>()];
    (0..12u8, flags, 0..4u32, payload).prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        stream in proptest::collection::vec(any_frame(), 1..12),
        cuts in proptest::collection::vec(1..40usize, 1..200),
    ) {
        let bytes = stream.concat();
        let mut chunks = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (chunk, later) = rest.split_at(cut.min(rest.len()));
            chunks.push(chunk);
            rest = later;
        }
        chunks.push(rest);
        prop_assert_eq!(read(&mut reader(), &chunks), read(&mut reader(), &[&bytes]));
    }

    #[test]
    fn noise_never_panics_nor_gathers(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut reader = reader();
        read(&mut reader, &[&bytes]);
        prop_assert!(reader.block.capacity() <= 8192);
    }
}

#[test]
fn settings_and_continuations_may_be_as_many_as_their_limits() {
    let settings = |entries: usize| frame(kind::SETTINGS, 0, 0, &[0, 9, 0, 0, 0, 0].repeat(entries));
    assert_eq!(read(&mut reader(), &[&settings(64)]).len(), 65);
    assert_eq!(refused(&settings(65)), ConnectionError::Flood(crate::flood::Kind::Settings));

    let block = |frames: usize| {
        let rest = frame(kind::CONTINUATION, 0, 1, b"x").repeat(frames - 2);
        [frame(kind::HEADERS, 0, 1, b"x"), rest, frame(kind::CONTINUATION, flag::END_HEADERS, 1, b"x")].concat()
    };
    assert!(matches!(&read(&mut reader(), &[&block(16)])[..], [Told::Piece(_), Told::Piece(_)]));
    assert!(matches!(refused(&block(17)), ConnectionError::HeaderBlock { .. }));
}

#[test]
fn a_priority_is_no_padding() {
    let payload = [0x80, 0, 0, 3, 200, b'x'];
    let told = read(&mut reader(), &[&frame(kind::HEADERS, flag::PRIORITY | flag::END_HEADERS, 1, &payload)]);
    assert!(matches!(&told[1], Told::Piece(text) if text.contains("[120]")), "{told:?}");
}

#[test]
fn while_padding_is_awaited_there_is_nothing_to_tell() {
    let whole = frame(kind::DATA, flag::PADDED, 1, &[2, b'x', 0, 0]);
    let mut reader = reader();
    let mut input = &whole[..whole.len() - 2];
    let mut pieces = 0;
    while reader.next(&mut input).unwrap().is_some() {
        pieces += 1;
        assert!(pieces < 10, "without input");
    }
    assert_eq!(pieces, 3, "the beginning, the length of the padding, and the data");
}
