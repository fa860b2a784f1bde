//! The fast layer of the body scanner: how far ordinary text goes.
//!
//! Octets are judged in pairs, each with the one before it, by vector compares over two overlapping loads of the
//! same text: no branch depends on an octet until a whole group of vectors is done, so that lines do not matter.
//! Four conditions make a pair odd: LF without CR, CR without LF, a dot behind LF, a NUL. The first two are one
//! XOR of compares; dot and NUL are one minimum that is 0 where they are (`(before ^ LF) | (octet ^ '.')`, and the
//! octet itself), which is cheaper than four compares. A group that holds something odd is gone through vector by
//! vector, and the bit mask of the compare tells where.
//!
//! Measured on 64 KiB of 78-octet lines (Zen 4, `benches/micro/data_scanner.rs`), GB/s, against 55 to 60 of one
//! `memmem` for CRLF dot: AVX-512 45, AVX2 42, SSE2 19. The roads not taken: `memchr3` for CR, LF and NUL stops at
//! each line, 6; plain loops that the compiler vectorises gave 17 with SSE2 and 32 with AVX2, but a harmless change
//! (a helper that returns 0 or 255) turned the vectors off and gave 0.7. `pulp` dispatches as well, with eleven
//! crates behind it; `fearless_simd` has none.
//!
//! It must not keep state or know framing: what an odd pair means is the scanner's to say.

use fearless_simd::{Level, Simd, SimdBase, SimdMask, dispatch};

/// Where ordinary text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clean {
    /// The first octet that is odd behind the octet before it; the end of the input where there is none.
    pub(super) end: usize,
    /// Whether an octet above 127 was passed. Octets before the start may count, those behind the end do not.
    pub(super) has_8bit: bool,
}

/// How far the octets from `from` on are ordinary. There is an octet before them: `from` is at least 1 and at most
/// the length of the input.
pub(super) fn clean_until(input: &[u8], from: usize) -> Clean {
    dispatch!(Level::new(), simd => clean_vectors(simd, input, from))
}

#[inline(always)]
fn clean_vectors<S: Simd>(simd: S, input: &[u8], from: usize) -> Clean {
    let lanes = S::u8s::LEN;
    let mut at = from;
    let mut union = S::u8s::splat(simd, 0);
    while input.len() - at >= GROUP * lanes {
        let pairs = Pairs::group(simd, input, at);
        if pairs.odd().any_true() {
            break;
        }
        union |= pairs.union;
        at += GROUP * lanes;
    }
    let mut odd = 0;
    while odd == 0 && at < input.len() && input.len() > lanes {
        // The last vector reaches back over octets that are known to be clean, or are none of ours.
        let start = at.min(input.len() - lanes);
        let pairs = Pairs::load(simd, input, start);
        odd = pairs.odd().to_bitmask() >> (at - start);
        if odd == 0 {
            union |= pairs.union;
            at = start + lanes;
        } else {
            let clean = odd.trailing_zeros() as usize;
            union |= u8::from(!input[at..at + clean].is_ascii()) << 7;
            at += clean;
        }
    }
    let has_8bit = union.simd_ge(0x80).any_true();
    if odd != 0 || at == input.len() {
        return Clean { end: at, has_8bit };
    }
    let rest = input[at - 1..].windows(2).take_while(|pair| !is_odd(pair[0], pair[1])).count();
    Clean { end: at + rest, has_8bit: has_8bit || !input[at..at + rest].is_ascii() }
}

/// One octet behind another, as the vectors judge them.
fn is_odd(before: u8, octet: u8) -> bool {
    (octet == b'\n') != (before == b'\r') || (before == b'\n' && octet == b'.') || octet == 0
}

/// What a vector of octets, or several, are like behind the octets before them.
struct Pairs<S: Simd> {
    /// Lanes with a CR or LF alone.
    newlines: <S::u8s as SimdBase<S>>::Mask,
    /// 0 in lanes with a NUL or a dot behind LF.
    lowest: S::u8s,
    /// The octets, or-ed.
    union: S::u8s,
}

impl<S: Simd> Pairs<S> {
    #[inline(always)]
    fn load(simd: S, input: &[u8], start: usize) -> Self {
        let before = S::u8s::from_slice(simd, &input[start - 1..start - 1 + S::u8s::LEN]);
        let octet = S::u8s::from_slice(simd, &input[start..start + S::u8s::LEN]);
        Self {
            newlines: octet.simd_eq(b'\n') ^ before.simd_eq(b'\r'),
            lowest: ((before ^ b'\n') | (octet ^ b'.')).min(octet),
            union: octet,
        }
    }

    /// [`GROUP`] vectors in one.
    #[inline(always)]
    fn group(simd: S, input: &[u8], start: usize) -> Self {
        let mut all = Self::load(simd, input, start);
        for number in 1..GROUP {
            let pairs = Self::load(simd, input, start + number * S::u8s::LEN);
            all.newlines |= pairs.newlines;
            all.lowest = all.lowest.min(pairs.lowest);
            all.union |= pairs.union;
        }
        all
    }

    #[inline(always)]
    fn odd(&self) -> <S::u8s as SimdBase<S>>::Mask {
        self.newlines | self.lowest.simd_eq(0)
    }
}

/// Vectors judged before the first branch.
const GROUP: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All levels that this machine has, by the same code as the best.
    fn at_each_level(input: &[u8], from: usize) -> Vec<Clean> {
        let best = Level::new();
        let mut levels = vec![best];
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(best.as_avx2().map(Level::Avx2));
            levels.extend(best.as_sse4_2().map(Level::Sse4_2));
            levels.extend(best.as_sse2().map(Level::Sse2));
        }
        levels.into_iter().map(|level| dispatch!(level, simd => clean_vectors(simd, input, from))).collect()
    }

    fn naive(input: &[u8], from: usize) -> usize {
        (from..input.len()).find(|&at| is_odd(input[at - 1], input[at])).unwrap_or(input.len())
    }

    #[test]
    fn finds_each_odd_pair_at_each_place() {
        for odd in [&b"a\n"[..], b"\ra", b"\n.", b"a\0", b"\r\r", b"\n\n"] {
            for length in [0, 1, 30, 63, 64, 65, 300, 700] {
                for at in (0..length).step_by(7) {
                    let mut input = vec![b'x'; length + 2];
                    input[at..at + 2].copy_from_slice(odd);
                    let expected = naive(&input, 1);
                    assert!(
                        at_each_level(&input, 1).iter().all(|clean| clean.end == expected),
                        "{odd:?} {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn sees_8bit_octets_up_to_the_end_only() {
        for length in [3, 40, 200, 600] {
            let clean = [vec![b'x'; length], "é".into(), vec![b'x'; length]].concat();
            assert!(at_each_level(&clean, 1).iter().all(|clean| clean.has_8bit));
            let behind = [vec![b'x'; length], b"\n".to_vec(), "é".into(), vec![b'x'; length]].concat();
            assert!(at_each_level(&behind, 1).iter().all(|clean| !clean.has_8bit && clean.end == length));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_search(
            parts in prop::collection::vec(prop_oneof![
                6 => (1..90usize).prop_map(|length| [&vec![b'x'; length][..], b"\r\n"].concat()),
                1 => prop::sample::select(vec!["\r\n", "\n", "\r", ".", "\0", "é", "a"]).prop_map(|part| part.as_bytes().to_vec()),
            ], 1..30),
            from in any::<prop::sample::Index>(),
        ) {
            let input = parts.concat();
            let from = from.index(input.len()) + 1;
            let end = naive(&input, from);
            let certain = !input[from..end].is_ascii();
            for clean in at_each_level(&input, from) {
                prop_assert_eq!(clean.end, end);
                prop_assert!(clean.has_8bit || !certain);
                prop_assert!(!clean.has_8bit || !input[..end].is_ascii());
            }
        }
    }
}
