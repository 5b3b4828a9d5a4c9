//! Masking (RFC 6455, section 5.3): the same operation masks and unmasks.

/// Applies `key` to `bytes`, which start at `offset` in their frame's payload.
pub(crate) fn apply(bytes: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Eight bytes at a time: the compiler makes vector code of this loop.
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::apply;
    use proptest::prelude::*;

    proptest! {
        /// The wide loop does what section 5.3 says byte by byte, wherever the payload is cut.
        #[test]
        fn masks_as_the_rfc_says(bytes: Vec<u8>, key: [u8; 4], cut: prop::sample::Index) {
            let expected: Vec<u8> = bytes.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let mut whole = bytes.clone();
            apply(&mut whole, key, 0);
            prop_assert_eq!(&whole, &expected);

            let mut parts = bytes;
            let cut = cut.index(parts.len() + 1);
            let (left, right) = parts.split_at_mut(cut);
            apply(left, key, 0);
            apply(right, key, cut);
            prop_assert_eq!(&parts, &expected);
        }
    }
}
