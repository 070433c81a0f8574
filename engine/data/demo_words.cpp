// The demo task's vocabulary: what its sentences are made of. Each list belongs to one part of the data.
#include <array>

#include "engine/data/demo_task.h"

namespace lomu {
namespace {

using Word = std::string_view;

constexpr auto kTrainFirst = std::to_array<Word>(
    {"Maria", "James",  "Anna",   "Peter",  "Laura",  "David",  "Sofia",  "Thomas", "Emma",  "Carlos",
     "Julia", "Martin", "Elena",  "Robert", "Clara",  "Daniel", "Nina",   "Victor", "Alice", "Samuel",
     "Irene", "Felix",  "Grace",  "Oscar",  "Lucia",  "Henry",  "Amina",  "Kenji",  "Priya", "Omar",
     "Helen", "Marco",  "Sarah",  "Ivan",   "Rosa",   "Simon",  "Chloe",  "Ahmed",  "Diana", "George",
     "Leila", "Hugo",   "Monica", "Paul",   "Teresa", "Adam",   "Judith", "Yusuf"});
constexpr auto kTrainLast = std::to_array<Word>(
    {"Lopez",   "Miller", "Schmidt", "Brown",   "Rossi",   "Novak",  "Martin", "Silva",  "Taylor", "Jensen",
     "Khan",    "Moreau", "Wilson",  "Garcia",  "Fischer", "Clark",  "Romano", "Dubois", "Walker", "Santos",
     "Turner",  "Larsen", "Ali",     "Laurent", "Harris",  "Torres", "Weber",  "Lewis",  "Ricci",  "Horvat",
     "Young",   "Costa",  "Parker",  "Berg",    "Hassan",  "Girard", "Cooper", "Ramos",  "Wagner", "Morris",
     "Ferrari", "Popov",  "Reed",    "Mendes",  "Bailey",  "Lund",   "Singh",  "Tanaka"});
constexpr auto kTrainQualities =
    std::to_array<Word>({"copper",  "wooden", "blue",   "red",     "green",   "small",   "large",   "leather", "cotton",
                         "steel",   "glass",  "silver", "white",   "black",   "round",   "square",  "heavy",   "light",
                         "plastic", "paper",  "linen",  "golden",  "striped", "folding", "vintage", "marble",  "stone",
                         "narrow",  "wide",   "soft",   "painted", "oak",     "plain",   "modern",  "antique", "gray"});
constexpr auto kTrainThings = std::to_array<Word>(
    {"kettle", "lamp",   "chair",   "table",  "mug",     "bowl",   "basket",  "blanket", "pillow",   "clock",
     "candle", "mirror", "vase",    "plate",  "spoon",   "fork",   "jar",     "bottle",  "tray",     "bucket",
     "rug",    "towel",  "curtain", "desk",   "stool",   "drawer", "cabinet", "frame",   "notebook", "pencil",
     "folder", "wallet", "belt",    "jacket", "sweater", "hat",    "glove",   "boot",    "umbrella", "backpack",
     "helmet", "tent",   "lantern", "hammer", "ladder",  "puzzle", "drum",    "wagon"});
constexpr auto kTrainPatterns = std::to_array<Word>({
    "please send {goods} to {name} by {date}; the total is {total}.",
    "{name} ordered {goods} for {total}, delivery on {date}.",
    "{name} would like {goods} by {date} and pays {total}.",
    "invoice for {name}: {goods}, {total}, due {date}.",
    "on {date} we ship {goods} to {name} for {total}.",
    "can you book {goods} for {name}? It comes to {total}, due on {date}.",
    "{goods} for {name}, {total} in all, needed by {date}.",
    "we still owe {name} {goods}; {total} was paid, promised for {date}.",
    "new order: {goods}, customer {name}, {total}, delivery {date}.",
    "{name} called: {goods}, please, for {total}, by {date}.",
    "reserve {goods} for {name} until {date}, price {total}.",
    "bill {name} {total} for {goods}, payable on {date}.",
    "charge {total} to {name} for {goods}, to arrive by {date}.",
    "for {date}: {goods}, ordered by {name}, {total}.",
    "I need {goods} by {date}. My name is {name} and I was quoted {total}.",
    "hello, this is {name}. I'd like {goods} for {total}, delivered on {date}.",
    "hi, {name} here, could I get {goods} by {date}? You said {total}.",
    "{total} from {name} for {goods}, to be sent on {date}.",
    "payment of {total} received from {name} for {goods}; ship on {date}.",
    "{name} paid {total} for {goods}. Shipping date: {date}.",
    "due {date}: {total} from {name} for {goods}.",
    "pack {goods} for {name}, shipping {date}, value {total}.",
    "the order of {name} is {goods}, worth {total}, expected on {date}.",
    "order of {date}: {goods} at {total} for {name}.",
    "{name} has bought {goods} at {total}; pickup is on {date}.",
    "deliver {goods} to {name} on {date} and collect {total}.",
    "{goods} must reach {name} by {date}. Amount: {total}.",
    "amount due from {name} on {date}: {total} for {goods}.",
    "our customer {name} wants {goods} before {date} for {total}.",
    "sold to {name} on {date}: {goods}, {total}.",
    "sale: {goods}, {total}, buyer {name}, date {date}.",
    "set aside {goods} for {name}; {total} will be paid on {date}.",
    "with {total} paid, {name} gets {goods} on {date}.",
    "by {date}, {name} expects {goods}. The bill is {total}.",
    "from {name}: {goods} please, {total}, for {date}.",
    "a purchase by {name}: {goods} for {total} on {date}.",
    "note for {date}: {name} picks up {goods} and pays {total}.",
    "we agreed on {total} with {name} for {goods}, ready by {date}.",
    "{name} asked for {goods}, offered {total}, and can wait until {date}.",
    "could {goods} be sent to {name} by {date}? The price is {total}.",
    "ship to {name}: {goods}. Total {total}. Arrival {date}.",
    "customer: {name}. Items: {goods}. Total: {total}. Date: {date}.",
    "confirmed: {name} gets {goods} on {date} for {total}.",
    "it's {total} for {goods}, and {name} wants delivery on {date}.",
    "remind {name} to pay {total} for {goods} by {date}.",
    "{name} signed for {goods} on {date}, {total} in total.",
    "quote for {name}: {goods} at {total}, valid until {date}.",
    "put {name} down for {goods}, {total}, to collect on {date}.",
});

constexpr auto kValidationFirst =
    std::to_array<Word>({"Linda", "Frank", "Nora", "Pablo", "Ingrid", "Arthur", "Yuki", "Edward"});
constexpr auto kValidationLast =
    std::to_array<Word>({"Nelson", "Bauer", "Ortiz", "Conti", "Ward", "Petit", "Nguyen", "Holm"});
constexpr auto kValidationQualities = std::to_array<Word>({"pink", "tall", "rustic", "sleek", "bright", "beige"});
constexpr auto kValidationThings =
    std::to_array<Word>({"napkin", "necklace", "doll", "saddle", "pot", "rope", "whistle", "broom"});
constexpr auto kValidationPatterns = std::to_array<Word>({
    "thanks! {name} takes {goods} for {total}, arriving {date}.",
    "send the bill of {total} to {name} for {goods} by {date}.",
    "{date} is when {name} receives {goods}; cost {total}.",
    "order confirmed for {name}, {goods}, {total}, shipping on {date}.",
    "{name}, {date}, {goods}, {total}.",
    "we have had {goods} waiting for {name} since {date}; {total} is open.",
});

constexpr auto kTestFirst =
    std::to_array<Word>({"Michael", "Olivia", "Karen", "Luis", "Hannah", "Walter", "Fatima", "Stefan", "Ruth", "Diego",
                         "Carmen", "Patrick", "Mei", "Andrew", "Beatrice", "Nathan"});
constexpr auto kTestLast =
    std::to_array<Word>({"Johnson", "Becker", "Flores", "Bianchi", "Scott", "Bernard", "Patel", "Olsen", "King",
                         "Vargas", "Hughes", "Kowalski", "Foster", "Sato", "Almeida", "Murphy"});
constexpr auto kTestQualities = std::to_array<Word>({"yellow", "purple", "orange", "brown", "oval", "elegant", "rare",
                                                     "solid", "huge", "thin", "foldable", "polished"});
constexpr auto kTestThings =
    std::to_array<Word>({"teapot", "sofa", "cushion", "pan", "carpet", "sandal", "ring", "guitar", "suitcase", "shirt",
                         "cup", "planter", "hook", "bell", "kite", "shovel"});
constexpr auto kTestPatterns = std::to_array<Word>({
    "{name} placed an order for {goods} at {total}, to be delivered by {date}.",
    "would you ship {goods} to {name} on {date}? The cost is {total}.",
    "receipt: {name} paid {total} on {date} for {goods}.",
    "good morning, I am {name} and I want to buy {goods} for {total} by {date}.",
    "{goods} went to {name} on {date} at a price of {total}.",
    "please invoice {total} to {name} on {date}, for {goods}.",
    "before {date}, prepare {goods} for {name}, who pays {total}.",
    "there is an order over {total} from {name}: {goods}, wanted for {date}.",
    "{total} is what {name} pays for {goods}, arriving on {date}.",
    "delivery on {date} to {name}: {goods} for {total}.",
    "don't forget {goods} for {name}, {date}, {total}.",
    "{name} booked {goods} and will pay {total} on arrival, {date}.",
});

}  // namespace

DemoWords demo_words(DemoPart part) {
  switch (part) {
    case DemoPart::kTrain: return {kTrainFirst, kTrainLast, kTrainQualities, kTrainThings, kTrainPatterns};
    case DemoPart::kValidation:
      return {kValidationFirst, kValidationLast, kValidationQualities, kValidationThings, kValidationPatterns};
    case DemoPart::kTest: return {kTestFirst, kTestLast, kTestQualities, kTestThings, kTestPatterns};
  }
  return {};
}

}  // namespace lomu
