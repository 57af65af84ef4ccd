//! The classes that a mirror tells apart, in the order of the network's columns.

/// Number of part classes, background included: the values of a label map are `0..PART_COUNT`.
pub const PART_COUNT: usize = 16;

/// The network's column for "this query is one whole human".
pub const PERSON_CLASS: usize = PART_COUNT;

/// Columns of the network's class logits: parts, whole human, no object.
pub const CLASS_COUNT: usize = PART_COUNT + 2;

/// A part of a person, or the background. Left and right are the person's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it
pub enum Part {
    Background = 0,
    Hair = 1,
    Face = 2,
    /// Trunk of the body, neck included.
    Torso = 3,
    UpperArmLeft = 4,
    UpperArmRight = 5,
    LowerArmLeft = 6,
    LowerArmRight = 7,
    HandLeft = 8,
    HandRight = 9,
    UpperLegLeft = 10,
    UpperLegRight = 11,
    LowerLegLeft = 12,
    LowerLegRight = 13,
    FootLeft = 14,
    FootRight = 15,
}

impl Part {
    /// Every part, in index order.
    pub const ALL: [Part; PART_COUNT] = [
        Part::Background,
        Part::Hair,
        Part::Face,
        Part::Torso,
        Part::UpperArmLeft,
        Part::UpperArmRight,
        Part::LowerArmLeft,
        Part::LowerArmRight,
        Part::HandLeft,
        Part::HandRight,
        Part::UpperLegLeft,
        Part::UpperLegRight,
        Part::LowerLegLeft,
        Part::LowerLegRight,
        Part::FootLeft,
        Part::FootRight,
    ];

    /// The part with this index in a label map, or `None` above 15.
    pub fn from_index(index: u8) -> Option<Part> {
        Part::ALL.get(usize::from(index)).copied()
    }

    /// The index in a label map, `0..16`.
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The stable name used in manifests, JSON and file formats, such as `lower_arm_left`.
    pub const fn name(self) -> &'static str {
        match self {
            Part::Background => "background",
            Part::Hair => "hair",
            Part::Face => "face",
            Part::Torso => "torso",
            Part::UpperArmLeft => "upper_arm_left",
            Part::UpperArmRight => "upper_arm_right",
            Part::LowerArmLeft => "lower_arm_left",
            Part::LowerArmRight => "lower_arm_right",
            Part::HandLeft => "hand_left",
            Part::HandRight => "hand_right",
            Part::UpperLegLeft => "upper_leg_left",
            Part::UpperLegRight => "upper_leg_right",
            Part::LowerLegLeft => "lower_leg_left",
            Part::LowerLegRight => "lower_leg_right",
            Part::FootLeft => "foot_left",
            Part::FootRight => "foot_right",
        }
    }

    /// The part with this stable name.
    pub fn from_name(name: &str) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.name() == name)
    }

    /// This part on the person's other side; parts without a side are their own.
    pub fn other_side(self) -> Part {
        match self {
            Part::UpperArmLeft => Part::UpperArmRight,
            Part::UpperArmRight => Part::UpperArmLeft,
            Part::LowerArmLeft => Part::LowerArmRight,
            Part::LowerArmRight => Part::LowerArmLeft,
            Part::HandLeft => Part::HandRight,
            Part::HandRight => Part::HandLeft,
            Part::UpperLegLeft => Part::UpperLegRight,
            Part::UpperLegRight => Part::UpperLegLeft,
            Part::LowerLegLeft => Part::LowerLegRight,
            Part::LowerLegRight => Part::LowerLegLeft,
            Part::FootLeft => Part::FootRight,
            Part::FootRight => Part::FootLeft,
            unsided => unsided,
        }
    }

    /// Rank in a contest for a pixel, 0 highest: small important parts are never covered by large
    /// ones (face, then hair, hands and feet, then limbs from the outside in, torso, background).
    pub const fn priority(self) -> u8 {
        match self {
            Part::Face => 0,
            Part::Hair => 1,
            Part::HandLeft | Part::HandRight => 2,
            Part::FootLeft | Part::FootRight => 3,
            Part::LowerArmLeft | Part::LowerArmRight => 4,
            Part::UpperArmLeft | Part::UpperArmRight => 5,
            Part::LowerLegLeft | Part::LowerLegRight => 6,
            Part::UpperLegLeft | Part::UpperLegRight => 7,
            Part::Torso => 8,
            Part::Background => 9,
        }
    }

    /// The class of PASCAL-Person-Part that this part counts as.
    pub const fn ppp(self) -> PppClass {
        match self {
            Part::Background => PppClass::Background,
            Part::Hair | Part::Face => PppClass::Head,
            Part::Torso => PppClass::Torso,
            Part::UpperArmLeft | Part::UpperArmRight => PppClass::UpperArms,
            Part::LowerArmLeft | Part::LowerArmRight | Part::HandLeft | Part::HandRight => {
                PppClass::LowerArms
            }
            Part::UpperLegLeft | Part::UpperLegRight => PppClass::UpperLegs,
            Part::LowerLegLeft | Part::LowerLegRight | Part::FootLeft | Part::FootRight => {
                PppClass::LowerLegs
            }
        }
    }
}

/// The seven classes of the PASCAL-Person-Part data set, the field's common yardstick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names say it
pub enum PppClass {
    Background = 0,
    Head = 1,
    Torso = 2,
    UpperArms = 3,
    LowerArms = 4,
    UpperLegs = 5,
    LowerLegs = 6,
}

impl PppClass {
    /// Every class, in index order.
    pub const ALL: [PppClass; 7] = [
        PppClass::Background,
        PppClass::Head,
        PppClass::Torso,
        PppClass::UpperArms,
        PppClass::LowerArms,
        PppClass::UpperLegs,
        PppClass::LowerLegs,
    ];

    /// The index in a seven-class label map.
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The stable name, such as `lower_arms`.
    pub const fn name(self) -> &'static str {
        match self {
            PppClass::Background => "background",
            PppClass::Head => "head",
            PppClass::Torso => "torso",
            PppClass::UpperArms => "upper_arms",
            PppClass::LowerArms => "lower_arms",
            PppClass::UpperLegs => "upper_legs",
            PppClass::LowerLegs => "lower_legs",
        }
    }

    /// The class with this stable name.
    pub fn from_name(name: &str) -> Option<PppClass> {
        PppClass::ALL.into_iter().find(|class| class.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_name_round_trip() {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(part.index()), index);
            assert_eq!(Part::from_index(part.index()), Some(part));
            assert_eq!(Part::from_name(part.name()), Some(part));
            assert_eq!(part.other_side().other_side(), part);
        }
        assert_eq!(Part::from_index(16), None);
        for class in PppClass::ALL {
            assert_eq!(PppClass::from_name(class.name()), Some(class));
        }
    }

    #[test]
    fn face_is_never_covered_and_background_never_covers() {
        for part in Part::ALL {
            assert!(part == Part::Face || part.priority() > Part::Face.priority());
            assert!(part == Part::Background || part.priority() < Part::Background.priority());
        }
    }
}
