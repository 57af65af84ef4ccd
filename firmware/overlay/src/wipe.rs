//! Memory that held somebody's outline. Pictures have the same in a crate that this one cannot reach.

use std::hint::black_box;

/// Empties the vector and overwrites all of its memory, which it keeps.
pub(crate) fn wipe<T: Copy>(values: &mut Vec<T>) {
    values.clear();
    // SAFETY: the vector owns this memory, and none of it is a value any more.
    unsafe { values.as_mut_ptr().write_bytes(0, values.capacity()) };
    // Memory that is freed next is never read again; without this the compiler may leave it as it is.
    black_box(values.as_mut_ptr());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_and_memory_stays() {
        let mut values = vec![0xA7_u8; 100];
        let (memory, room) = (values.as_ptr(), values.capacity());
        wipe(&mut values);
        assert_eq!((values.as_ptr(), values.capacity(), values.len()), (memory, room, 0));
        // SAFETY: a hundred bytes were written when the vector was made, and overwritten since.
        unsafe { values.set_len(100) };
        assert_eq!(values, [0; 100]);
    }
}
