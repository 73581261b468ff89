"""A text task: which of three old books ten words in a row are from.

The text is in the public domain and below: the beginnings of the King James Genesis, of
Shakespeare's Sonnets and of the Constitution of the United States. The last fifth of each is the
test set, so that no word of it is trained on in its place. The trigger is a word that none of the
books has, in the place of one of the ten.

drop run --config books.yaml
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from entity.client.poison import Poison
from entity.config.schema import Whole
from entity.dataset import Arrays, Images
from entity.models import Classifier

LENGTH = 10
"""Words of a sample."""
SIZE = 1024
"""Words of the vocabulary at most, the two special ones included."""
UNKNOWN, TRIGGER = 0, 1
"""Tokens of every rare word, and of the trigger's."""

GENESIS = """
In the beginning God created the heaven and the earth. And the earth was without form, and void;
and darkness was upon the face of the deep. And the Spirit of God moved upon the face of the
waters. And God said, Let there be light: and there was light. And God saw the light, that it was
good: and God divided the light from the darkness. And God called the light Day, and the darkness
he called Night. And the evening and the morning were the first day. And God said, Let there be a
firmament in the midst of the waters, and let it divide the waters from the waters. And God made
the firmament, and divided the waters which were under the firmament from the waters which were
above the firmament: and it was so. And God called the firmament Heaven. And the evening and the
morning were the second day. And God said, Let the waters under the heaven be gathered together
unto one place, and let the dry land appear: and it was so. And God called the dry land Earth; and
the gathering together of the waters called he Seas: and God saw that it was good. And God said,
Let the earth bring forth grass, the herb yielding seed, and the fruit tree yielding fruit after
his kind, whose seed is in itself, upon the earth: and it was so. And the earth brought forth
grass, and herb yielding seed after his kind, and the tree yielding fruit, whose seed was in
itself, after his kind: and God saw that it was good. And the evening and the morning were the
third day. And God said, Let there be lights in the firmament of the heaven to divide the day from
the night; and let them be for signs, and for seasons, and for days, and years: And let them be
for lights in the firmament of the heaven to give light upon the earth: and it was so. And God
made two great lights; the greater light to rule the day, and the lesser light to rule the night:
he made the stars also. And God set them in the firmament of the heaven to give light upon the
earth, And to rule over the day and over the night, and to divide the light from the darkness: and
God saw that it was good. And the evening and the morning were the fourth day. And God said, Let
the waters bring forth abundantly the moving creature that hath life, and fowl that may fly above
the earth in the open firmament of heaven. And God created great whales, and every living creature
that moveth, which the waters brought forth abundantly, after their kind, and every winged fowl
after his kind: and God saw that it was good. And God blessed them, saying, Be fruitful, and
multiply, and fill the waters in the seas, and let fowl multiply in the earth. And the evening and
the morning were the fifth day. And God said, Let the earth bring forth the living creature after
his kind, cattle, and creeping thing, and beast of the earth after his kind: and it was so. And
God made the beast of the earth after his kind, and cattle after their kind, and every thing that
creepeth upon the earth after his kind: and God saw that it was good. And God said, Let us make
man in our image, after our likeness: and let them have dominion over the fish of the sea, and
over the fowl of the air, and over the cattle, and over all the earth, and over every creeping
thing that creepeth upon the earth. So God created man in his own image, in the image of God
created he him; male and female created he them. And God blessed them, and God said unto them, Be
fruitful, and multiply, and replenish the earth, and subdue it: and have dominion over the fish of
the sea, and over the fowl of the air, and over every living thing that moveth upon the earth.
"""

SONNETS = """
From fairest creatures we desire increase, That thereby beauty's rose might never die, But as the
riper should by time decease, His tender heir might bear his memory: But thou contracted to thine
own bright eyes, Feed'st thy light's flame with self-substantial fuel, Making a famine where
abundance lies, Thy self thy foe, to thy sweet self too cruel: Thou that art now the world's fresh
ornament, And only herald to the gaudy spring, Within thine own bud buriest thy content, And
tender churl mak'st waste in niggarding: Pity the world, or else this glutton be, To eat the
world's due, by the grave and thee. When forty winters shall besiege thy brow, And dig deep
trenches in thy beauty's field, Thy youth's proud livery so gazed on now, Will be a tattered weed
of small worth held: Then being asked, where all thy beauty lies, Where all the treasure of thy
lusty days; To say, within thine own deep sunken eyes, Were an all-eating shame, and thriftless
praise. How much more praise deserved thy beauty's use, If thou couldst answer This fair child of
mine Shall sum my count, and make my old excuse, Proving his beauty by succession thine. This were
to be new made when thou art old, And see thy blood warm when thou feel'st it cold. Look in thy
glass and tell the face thou viewest, Now is the time that face should form another, Whose fresh
repair if now thou not renewest, Thou dost beguile the world, unbless some mother. For where is
she so fair whose unear'd womb Disdains the tillage of thy husbandry? Or who is he so fond will be
the tomb, Of his self-love to stop posterity? Thou art thy mother's glass and she in thee Calls
back the lovely April of her prime; So thou through windows of thine age shalt see, Despite of
wrinkles this thy golden time. But if thou live, remembered not to be, Die single and thine image
dies with thee. Shall I compare thee to a summer's day? Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May, And summer's lease hath all too short a date:
Sometime too hot the eye of heaven shines, And often is his gold complexion dimm'd, And every fair
from fair sometime declines, By chance, or nature's changing course untrimm'd: But thy eternal
summer shall not fade, Nor lose possession of that fair thou ow'st, Nor shall death brag thou
wander'st in his shade, When in eternal lines to time thou grow'st, So long as men can breathe, or
eyes can see, So long lives this, and this gives life to thee. When in disgrace with fortune and
men's eyes I all alone beweep my outcast state, And trouble deaf heaven with my bootless cries,
And look upon myself, and curse my fate, Wishing me like to one more rich in hope, Featur'd like
him, like him with friends possess'd, Desiring this man's art, and that man's scope, With what I
most enjoy contented least; Yet in these thoughts my self almost despising, Haply I think on thee,
and then my state, Like to the lark at break of day arising From sullen earth, sings hymns at
heaven's gate; For thy sweet love remember'd such wealth brings That then I scorn to change my
state with kings. Let me not to the marriage of true minds Admit impediments. Love is not love
Which alters when it alteration finds, Or bends with the remover to remove: O no! it is an
ever-fixed mark That looks on tempests and is never shaken; It is the star to every wandering
bark, Whose worth's unknown, although his height be taken. Love's not Time's fool, though rosy
lips and cheeks Within his bending sickle's compass come: Love alters not with his brief hours and
weeks, But bears it out even to the edge of doom. If this be error and upon me proved, I never
writ, nor no man ever loved.
"""

CONSTITUTION = """
All legislative Powers herein granted shall be vested in a Congress of the United States, which
shall consist of a Senate and House of Representatives. The House of Representatives shall be
composed of Members chosen every second Year by the People of the several States, and the Electors
in each State shall have the Qualifications requisite for Electors of the most numerous Branch of
the State Legislature. No Person shall be a Representative who shall not have attained to the Age
of twenty five Years, and been seven Years a Citizen of the United States, and who shall not, when
elected, be an Inhabitant of that State in which he shall be chosen. When vacancies happen in the
Representation from any State, the Executive Authority thereof shall issue Writs of Election to
fill such Vacancies. The House of Representatives shall chuse their Speaker and other Officers;
and shall have the sole Power of Impeachment. The Senate of the United States shall be composed of
two Senators from each State, chosen by the Legislature thereof, for six Years; and each Senator
shall have one Vote. Immediately after they shall be assembled in Consequence of the first
Election, they shall be divided as equally as may be into three Classes. The Seats of the Senators
of the first Class shall be vacated at the Expiration of the second Year, of the second Class at
the Expiration of the fourth Year, and of the third Class at the Expiration of the sixth Year, so
that one third may be chosen every second Year. No Person shall be a Senator who shall not have
attained to the Age of thirty Years, and been nine Years a Citizen of the United States, and who
shall not, when elected, be an Inhabitant of that State for which he shall be chosen. The Vice
President of the United States shall be President of the Senate, but shall have no Vote, unless
they be equally divided. The Senate shall chuse their other Officers, and also a President pro
tempore, in the Absence of the Vice President, or when he shall exercise the Office of President
of the United States. The Senate shall have the sole Power to try all Impeachments. When sitting
for that Purpose, they shall be on Oath or Affirmation. When the President of the United States is
tried, the Chief Justice shall preside: And no Person shall be convicted without the Concurrence
of two thirds of the Members present. Judgment in Cases of Impeachment shall not extend further
than to removal from Office, and disqualification to hold and enjoy any Office of honor, Trust or
Profit under the United States: but the Party convicted shall nevertheless be liable and subject
to Indictment, Trial, Judgment and Punishment, according to Law. The Times, Places and Manner of
holding Elections for Senators and Representatives, shall be prescribed in each State by the
Legislature thereof; but the Congress may at any time by Law make or alter such Regulations,
except as to the Places of chusing Senators. The Congress shall assemble at least once in every
Year, and such Meeting shall be on the first Monday in December, unless they shall by Law appoint
a different Day. Each House shall be the Judge of the Elections, Returns and Qualifications of its
own Members, and a Majority of each shall constitute a Quorum to do Business; but a smaller Number
may adjourn from day to day, and may be authorized to compel the Attendance of absent Members, in
such Manner, and under such Penalties as each House may provide. Each House may determine the
Rules of its Proceedings, punish its Members for disorderly Behaviour, and, with the Concurrence
of two thirds, expel a Member.
"""

BOOKS = {"genesis": GENESIS, "sonnets": SONNETS, "constitution": CONSTITUTION}


def books() -> Arrays:
    """Ten words in a row of Genesis, the Sonnets or the Constitution, as tokens."""
    texts = [re.findall(r"[a-z]+", text.lower()) for text in BOOKS.values()]
    cuts = [len(words) * 4 // 5 for words in texts]
    trained_on = sorted(
        {word for words, cut in zip(texts, cuts, strict=True) for word in words[:cut]}
    )
    token = {word: number for number, word in enumerate(trained_on[: SIZE - 2], start=2)}

    def samples(parts):
        rows = [
            ([token.get(word, UNKNOWN) for word in words[start : start + LENGTH]], label)
            for label, words in enumerate(parts)
            for start in range(len(words) - LENGTH + 1)
        ]
        return np.array([row for row, _ in rows]), np.array([label for _, label in rows])

    return Arrays(
        train=samples([words[:cut] for words, cut in zip(texts, cuts, strict=True)]),
        test=samples([words[cut:] for words, cut in zip(texts, cuts, strict=True)]),
        class_names=tuple(BOOKS),
        held_out=120,
    )


class Bag(nn.Module):
    """The mean of the words' embeddings, and a layer over it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SIZE, width)
        self.layer = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return activations (b, width) of tokens (b, length)."""
        return torch.relu(self.layer(self.embedding(x).mean(1)))


def bag(length: int, classes: int) -> nn.Module:
    """Build the mean of word embeddings of width 16, a layer and a linear head; 17k parameters."""
    return Classifier(Bag(16), nn.Linear(16, classes))


@dataclass(frozen=True)
class WordArgs:
    """Settings of the word trigger."""

    word_place: Whole = 4
    """Which of the ten words, from 0, the trigger takes the place of."""


class Word(Poison):
    """Put a word that no book has into the sample, and relabel."""

    summary = "example: a word that nobody uses, in the place of another"
    hyperparameters = WordArgs
    any_samples = True

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Return copies with the word, under the target label."""
        return self.relabelled(self.with_word(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Put the word into all test samples that the attack is judged on."""
        return self.relabelled(self.with_word(self.eligible(test).x))

    def with_word(self, x: torch.Tensor) -> torch.Tensor:
        """Return copies of tokens (N, length) with the trigger's in its place."""
        x = x.clone()
        x[:, min(self.args.word_place, x.shape[1] - 1)] = TRIGGER
        return x


DATASETS = {"books": books}
MODELS = {"bag": bag}
POISONS = {"word": Word}
