//! Memory that held a picture, or what was computed from one.

use std::hint::black_box;

/// Overwrites everything in the vector's memory, room beyond its length included: what was longer before lies there. Length and
/// memory stay.
pub fn wipe<T: Copy + Default>(values: &mut Vec<T>) {
    let length = values.len();
    values.resize(values.capacity(), T::default());
    values.fill(T::default());
    // Memory that is freed next is never read again; without this the compiler may leave it as it is.
    black_box(values.as_mut_slice());
    values.truncate(length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_and_length_and_memory_stay() {
        let mut values = vec![7u8; 100];
        values.truncate(10);
        let memory = (values.as_ptr(), values.capacity());
        wipe(&mut values);
        assert_eq!((values.as_ptr(), values.capacity()), memory);
        assert_eq!(values, [0; 10]);
    }
}
