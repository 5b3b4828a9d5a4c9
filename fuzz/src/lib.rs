//! What the fuzz targets share. A target is a file in `src/bin`; see the README.

/// Takes a byte off the front of an input, to choose between variants; 0 if there is none.
pub fn choice(data: &mut &[u8]) -> u8 {
    let Some((first, rest)) = data.split_first() else { return 0 };
    *data = rest;
    *first
}

/// Cuts `data` into pieces of lengths that `seed` decides: single bytes for 0, otherwise a fixed pseudorandom sequence
/// of lengths up to 17, so that an input that failed fails again.
pub fn pieces(mut data: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = u32::from(seed) * 2;
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        // A linear congruential generator: the lengths need to differ, not to be good random numbers.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wanted = if seed == 0 { 1 } else { 1 + (state >> 16) as usize % 17 };
        let (piece, rest) = data.split_at(wanted.min(data.len()));
        data = rest;
        Some(piece)
    })
}
