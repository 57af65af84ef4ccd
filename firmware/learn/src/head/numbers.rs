//! Numbers of a head as bytes: f32 each, little-endian, in the layout's order.

/// Why bytes are not the numbers that they should be; reads behind their name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NumbersError {
    /// Fewer or more bytes than the numbers have.
    #[error("has the wrong length")]
    Length,
    /// An infinity, or no number at all.
    #[error("has a value that is not a number")]
    NotFinite,
}

/// Appends four bytes a value. Grows `bytes` only where it has no room: what must be wiped reserves it before.
pub fn encode_into(bytes: &mut Vec<u8>, values: &[f32]) {
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

/// `count` numbers, all of them finite.
///
/// # Errors
/// [`NumbersError`].
pub fn decode(bytes: &[u8], count: usize) -> Result<Vec<f32>, NumbersError> {
    let values = decode_any(bytes, count)?;
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(values),
        false => Err(NumbersError::NotFinite),
    }
}

/// `count` numbers of a run that may have diverged: they need not be finite.
///
/// # Errors
/// [`NumbersError::Length`].
pub(crate) fn decode_any(bytes: &[u8], count: usize) -> Result<Vec<f32>, NumbersError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if words.len() != count || !rest.is_empty() {
        return Err(NumbersError::Length);
    }
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_what_is_not_them_is_refused_by_its_reason() {
        let values = [1.5, -0.0, f32::MIN_POSITIVE];
        let mut bytes = Vec::new();
        encode_into(&mut bytes, &values);
        assert_eq!(decode(&bytes, 3), Ok(values.to_vec()));
        for (bytes, count) in [(&bytes[..], 2), (&bytes[..11], 3), (&bytes[..11], 2)] {
            assert_eq!(decode(bytes, count), Err(NumbersError::Length));
        }
        bytes[8..].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(decode(&bytes, 3), Err(NumbersError::NotFinite));
        assert!(decode_any(&bytes, 3).is_ok_and(|values| values[2].is_nan()));
    }
}
