//! The repair against hand-made bytes, and against an independent HPACK encoder and decoder.

use std::collections::VecDeque;

use httlib_hpack::{Decoder, Encoder};
use proptest::prelude::*;

use super::*;

const NAME: &[u8] = b":authority";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn headers(block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, block)
}

fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE.as_slice(), &frames.concat()].concat()
}

/// Repairs a stream that arrives in pieces of the given sizes (over and over), as a reader of sockets would.
fn repair_in_pieces(stream: &[u8], sizes: &[usize]) -> (Vec<u8>, bool) {
    let mut repair = Repair::default();
    let mut sizes = sizes.iter().cycle();
    let (mut out, mut piece) = (Vec::new(), Vec::new());
    let mut rest = stream;
    while !rest.is_empty() {
        let (now, later) = rest.split_at((*sizes.next().expect("endless")).clamp(1, rest.len()));
        rest = later;
        piece.extend_from_slice(now);
        let ready = repair.run(&mut piece);
        assert!(ready + 1 >= piece.len(), "at most one byte is held back");
        out.extend(piece.drain(..ready));
    }
    out.extend(piece);
    (out, repair.is_off())
}

fn repaired(stream: &[u8]) -> Vec<u8> {
    let (out, off) = repair_in_pieces(stream, &[stream.len()]);
    assert!(!off, "the stream is valid");
    for sizes in [&[1][..], &[2], &[3, 1], &[7, 1, 1]] {
        assert_eq!(repair_in_pieces(stream, sizes), (out.clone(), false), "in pieces of {sizes:?}");
    }
    out
}

fn literal(first: u8, name: Option<&[u8]>, value: &[u8]) -> Vec<u8> {
    let mut block = vec![first];
    for text in name.into_iter().chain([value]) {
        block.push(u8::try_from(text.len()).expect("short"));
        block.extend(text);
    }
    block
}

#[test]
fn what_grpcio_sends_is_repaired() {
    // As captured from grpcio 1.85: literal with indexing, name spelled out, nothing Huffman-coded.
    let sent = connection(&[frame(4, 0, 0, &[]), headers(&literal(0x40, Some(NAME), b"tmp%2Fcap.sock"))]);
    let expected = connection(&[frame(4, 0, 0, &[]), headers(&literal(0x40, Some(NAME), b"tmp-2Fcap.sock"))]);
    assert_eq!(repaired(&sent), expected);
}

#[test]
fn the_name_may_be_an_index_or_huffman_coded_in_every_representation() {
    let mut huffman = vec![0x80 | 8];
    huffman.extend([0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f]);
    for form in [0x40, 0x00, 0x10] {
        let by_index = |value: &[u8]| connection(&[headers(&literal(form | 1, None, value))]);
        assert_eq!(repaired(&by_index(b"/a/b")), by_index(b"-a-b"));
        let coded =
            |value: &[u8]| connection(&[headers(&[vec![form], huffman.clone(), vec![4], value.to_vec()].concat())]);
        assert_eq!(repaired(&coded(b"/a/b")), coded(b"-a-b"));
    }
}

#[test]
fn other_headers_keep_every_byte() {
    for name in [&b":authoritx"[..], b":authorit", b":authority2", b"referer"] {
        let stream = connection(&[headers(&literal(0x40, Some(name), b"/a%2Fb"))]);
        assert_eq!(repaired(&stream), stream);
    }
    let path = connection(&[headers(&literal(0x04, None, b"/a%2Fb"))]);
    assert_eq!(repaired(&path), path);
}

#[test]
fn padding_priority_and_continuation_are_followed() {
    let make = |value: &[u8]| {
        let block = literal(0x41, None, value);
        let (one, two) = block.split_at(4);
        let padded = [&[3][..], &[0, 0, 0, 0, 16], one, b"%%%"].concat();
        connection(&[
            frame(HEADERS, PADDED | PRIORITY, 1, &padded),
            frame(CONTINUATION, 0, 1, &[]),
            frame(CONTINUATION, END_HEADERS, 1, two),
            frame(0, 1, 1, b"%/%/"),
            headers(&[0xbe]),
        ])
    };
    assert_eq!(repaired(&make(b"/x%2Fy")), make(b"-x-2Fy"));
}

#[test]
fn a_name_in_the_dynamic_table_is_found_as_entries_come_and_go() {
    let make = |values: [&[u8]; 3]| {
        connection(&[
            headers(&literal(0x41, None, values[0])),
            headers(&literal(0x40, Some(b"x"), b"/y")),
            headers(&literal(0x40 | 63, None, values[1]).iter().enumerate().fold(Vec::new(), |mut out, (at, byte)| {
                // 63 does not fit six bits: 63 + 0.
                out.push(*byte);
                if at == 0 {
                    out.push(0);
                }
                out
            })),
            // Shrink the table to nothing, then an index that no longer exists.
            headers(&[&[0x20][..], &literal(0x41, None, values[2])].concat()),
        ])
    };
    assert_eq!(repaired(&make([b"/a", b"%b", b"/c"])), make([b"-a", b"-b", b"-c"]));
    let (_, off) = repair_in_pieces(&connection(&[headers(&[0x20]), headers(&[0xbe])]), &[1]);
    assert!(off, "an index beyond the table");
}

#[test]
fn what_is_no_http2_switches_the_repair_off() {
    let huge = frame(0, 0, 1, &[0; 16_385]);
    let broken: [(&str, Vec<u8>); 7] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a frame over the limit", connection(&[huge])),
        ("a continuation of nothing", connection(&[frame(CONTINUATION, END_HEADERS, 1, &[])])),
        ("another frame within a block", connection(&[frame(HEADERS, 0, 1, &[0x82]), frame(0, 0, 1, b"x")])),
        ("more padding than payload", connection(&[frame(HEADERS, END_HEADERS | PADDED, 1, &[9, 0x82])])),
        ("an integer that overflows", connection(&[headers(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])])),
        ("a block that ends within a header", connection(&[headers(&[0x41, 5, b'/'])])),
    ];
    for (what, stream) in broken {
        let authority = headers(&literal(0x41, None, b"/a"));
        let (out, off) = repair_in_pieces(&[stream.clone(), authority.clone()].concat(), &[5]);
        assert!(off, "{what}");
        assert_eq!(out[stream.len()..], authority, "{what}: what follows is left alone");
    }
}

/// One header or instruction of a generated block.
#[derive(Clone, Debug)]
enum Field {
    Literal { authority: bool, value: String, flags: u8 },
    DynamicName { back: u32, value: String, flags: u8 },
    DynamicEntry { back: u32 },
    TableSize(u32),
}

fn field() -> impl Strategy<Value = Field> {
    let value = "[a-zA-Z0-9._~ %/-]{0,40}";
    prop_oneof![
        4 => (any::<bool>(), value, 0u8..32).prop_map(|(authority, value, flags)| Field::Literal { authority, value, flags }),
        2 => (0u32..6, value, 0u8..16).prop_map(|(back, value, flags)| Field::DynamicName { back, value, flags }),
        1 => (0u32..6).prop_map(|back| Field::DynamicEntry { back }),
        1 => (0u32..400).prop_map(Field::TableSize),
    ]
}

/// Encodes the blocks; fields that refer to entries which do not exist are left out.
fn encode(blocks: &[Vec<Field>], allow_huffman_values: bool) -> Vec<Vec<u8>> {
    let mut encoder = Encoder::with_dynamic_size(4096);
    let mask = if allow_huffman_values { u8::MAX } else { !Encoder::HUFFMAN_VALUE };
    let one = |encoder: &mut Encoder, field: &Field| -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match field {
            Field::Literal { authority, value, flags } => {
                let name = if *authority { NAME } else { b"x-path" };
                encoder.encode((name.to_vec(), value.clone().into_bytes(), flags & mask), &mut out).ok()?;
            }
            Field::DynamicName { back, value, flags } => {
                encoder.encode((62 + back, value.clone().into_bytes(), flags & mask), &mut out).ok()?;
            }
            Field::DynamicEntry { back } => encoder.encode(62 + back, &mut out).ok()?,
            Field::TableSize(size) => encoder.update_max_dynamic_size(*size, &mut out).ok()?,
        }
        Some(out)
    };
    blocks.iter().map(|block| block.iter().filter_map(|field| one(&mut encoder, field)).flatten().collect()).collect()
}

/// Decodes the header blocks of a stream of HEADERS and CONTINUATION frames without padding.
fn decode(stream: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut decoder = Decoder::with_dynamic_size(4096);
    let (mut block, mut fields) = (Vec::new(), Vec::new());
    let mut rest = &stream[PREFACE.len()..];
    while !rest.is_empty() {
        let length = usize::from(rest[1]) << 8 | usize::from(rest[2]);
        block.extend_from_slice(&rest[9..9 + length]);
        if rest[4] & END_HEADERS != 0 {
            let mut out = Vec::new();
            decoder.decode(&mut std::mem::take(&mut block), &mut out).expect("a valid block");
            fields.extend(out.into_iter().map(|(name, value, _)| (name, value)));
        }
        rest = &rest[9 + length..];
    }
    fields
}

fn cut_into_frames(block: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut pieces: VecDeque<&[u8]> = VecDeque::new();
    let mut rest = block;
    for cut in cuts {
        let (piece, later) = rest.split_at((*cut).min(rest.len()));
        pieces.push_back(piece);
        rest = later;
    }
    pieces.push_back(rest);
    let last = pieces.len() - 1;
    let frames = pieces.iter().enumerate().map(|(at, piece)| {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        frame(kind, if at == last { END_HEADERS } else { 0 }, 1, piece)
    });
    frames.flatten().collect()
}

proptest! {
    #[test]
    fn a_decoder_reads_legal_authorities_and_everything_else_as_it_was(
        blocks in prop::collection::vec(prop::collection::vec(field(), 0..6), 1..5),
        cuts in prop::collection::vec(0usize..30, 0..3),
        sizes in prop::collection::vec(1usize..40, 1..5),
    ) {
        // A Huffman code that begins in one frame and ends in the next is a documented limit.
        let frames: Vec<_> = encode(&blocks, cuts.is_empty()).iter().map(|block| cut_into_frames(block, &cuts)).collect();
        let stream = connection(&frames);
        let (out, off) = repair_in_pieces(&stream, &sizes);
        prop_assert!(!off);
        prop_assert_eq!(out.len(), stream.len());
        let expected: Vec<_> = decode(&stream).into_iter().map(|(name, value)| {
            let repaired = value.iter().map(|byte| if b" %/".contains(byte) { b'-' } else { *byte }).collect();
            if name == NAME { (name, repaired) } else { (name, value) }
        }).collect();
        prop_assert_eq!(decode(&out), expected.clone());
        if !expected.iter().any(|(name, _)| name == NAME) {
            prop_assert_eq!(out, stream);
        }
    }

    #[test]
    fn any_splitting_gives_the_same_bytes(
        tail in prop::collection::vec(any::<u8>(), 0..400),
        first in prop::collection::vec(1usize..50, 1..5),
        second in prop::collection::vec(1usize..50, 1..5),
        with_preface in any::<bool>(),
    ) {
        let frames = vec![headers(&tail[..tail.len().min(60)]), tail];
        let stream = if with_preface { connection(&frames) } else { frames.concat() };
        let (out, off) = repair_in_pieces(&stream, &first);
        prop_assert_eq!(out.len(), stream.len());
        prop_assert_eq!(repair_in_pieces(&stream, &second), (out, off));
    }
}
