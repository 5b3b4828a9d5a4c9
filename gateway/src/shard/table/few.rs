//! A list of indices that mostly has one.

/// In 16 bytes; only a second index makes an allocation.
#[derive(Debug, Default)]
pub(super) enum Few {
    #[default]
    Empty,
    One(u32),
    #[expect(clippy::box_collection, reason = "a Vec in place would take 24 bytes of every Few")]
    Many(Box<Vec<u32>>),
}

const _: () = assert!(size_of::<Few>() == 16);

/// Room for so many is kept, however few there are.
const KEPT: usize = 64;

impl Few {
    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            Self::Empty => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(all) => all,
        }
    }

    /// Adds one at the end; says its place.
    pub(super) fn push(&mut self, index: u32) -> u32 {
        match self {
            Self::Empty => {
                *self = Self::One(index);
                0
            }
            Self::One(only) => {
                *self = Self::Many(Box::new(vec![*only, index]));
                1
            }
            Self::Many(all) => {
                all.push(index);
                all.len() as u32 - 1
            }
        }
    }

    /// Takes out what is at this place. Returns the index that took the place, if one did.
    pub(super) fn swap_remove(&mut self, place: u32) -> Option<u32> {
        let all = match self {
            Self::Empty | Self::One(_) => {
                debug_assert!(place == 0 && matches!(self, Self::One(_)), "what is taken out is there");
                *self = Self::Empty;
                return None;
            }
            Self::Many(all) => all,
        };
        all.swap_remove(place as usize);
        let moved = all.get(place as usize).copied();
        if let [only] = all.as_slice() {
            *self = Self::One(*only);
        } else if all.capacity() > KEPT && all.len() * 4 < all.capacity() {
            all.shrink_to(all.len() * 2);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_vec(steps in proptest::collection::vec((any::<bool>(), 0_u32..8), 1..60)) {
            let (mut few, mut model) = (Few::One(7), vec![7]);
            for (adds, number) in steps {
                if adds || model.is_empty() {
                    prop_assert_eq!(few.push(number) as usize, model.len());
                    model.push(number);
                } else {
                    let place = number as usize % model.len();
                    model.swap_remove(place);
                    prop_assert_eq!(few.swap_remove(place as u32), model.get(place).copied());
                }
                prop_assert_eq!(few.as_slice(), model.as_slice());
                prop_assert_eq!(matches!(few, Few::One(_)), model.len() == 1);
            }
        }
    }
}
